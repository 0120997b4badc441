//! What the log line of a denied or malformed request says about its cause.

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::{
    helpers::{
        Emulator, Gate, ROUTE, SESSION, Token, eventually, expression, jwt, quota, rate_limit,
        upload_intent, workspace_member,
    },
    process::{GateProcess, write_config},
};

struct Logged {
    gate: GateProcess,
    _imgwire: Emulator,
    _folder: tempfile::TempDir,
}

impl Logged {
    async fn start(gate: Gate) -> Self {
        let imgwire = Emulator::start().unwrap();
        let (folder, path) = write_config(&gate, imgwire.url());
        Self {
            gate: GateProcess::start(&path, &[], "info").await,
            _imgwire: imgwire,
            _folder: folder,
        }
    }

    /// Sends a request, and returns its status and its only line.
    async fn line(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> (u16, Value) {
        let id = format!("request-{}", fastrand::u64(..));
        let url = format!("{}{path}", self.gate.url());
        let mut request = awc::Client::default().request(method, url);
        request = request.insert_header(("x-request-id", id.as_str()));
        for header in headers {
            request = request.append_header(*header);
        }
        let answer = match body {
            Value::Null => request.send().await,
            body => request.send_json(body).await,
        };
        let status = answer.unwrap().status().as_u16();
        let lines = || {
            let mut lines = self.gate.lines();
            lines.retain(|line| line["request_id"] == id.as_str());
            lines
        };
        eventually("the line", async || !lines().is_empty()).await;
        let mut lines = lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        (status, lines.remove(0))
    }

    async fn ask(&self, token: &str, body: Value) -> (u16, Value) {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        self.line(Method::POST, ROUTE, &headers, &body).await
    }
}

#[actix_web::test]
async fn a_429_names_the_limit_its_counter_and_the_wait() {
    let burst = rate_limit().per(["user", "route"]).limit(2).period("1m");
    let gate = Gate::with_policies([
        ("member", workspace_member().claim("workspaces")),
        ("daily", quota().per(["workspace"]).limit(1)),
        ("burst", burst.set("burst", 1)),
        ("everyone", rate_limit().per([""; 0]).limit(1).period("90s")),
    ]);
    let gate = gate
        .chain(["signed-in", "member", "daily"])
        .route("/burst", ["signed-in", "burst"])
        .route("/everyone", ["everyone"]);
    let logged = Logged::start(gate).await;
    let token = Token::of("user_1").sign();
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    for (path, policy, code, expected) in [
        (
            ROUTE,
            "daily",
            "quota_exhausted",
            json!({ "limit": 1, "window": "day", "limit_key": "workspace=ws_1" }),
        ),
        (
            "/burst",
            "burst",
            "rate_limited",
            json!({ "limit": 2, "burst": 1, "window": "1m", "limit_key": "user=user_1,route=/burst" }),
        ),
        (
            "/everyone",
            "everyone",
            "rate_limited",
            json!({ "limit": 1, "window": "90s", "limit_key": "all" }),
        ),
    ] {
        let (status, first) = logged
            .line(Method::POST, path, &headers, &Value::Null)
            .await;
        assert_eq!(status, 200, "{first}");
        assert!(first.get("limit").is_none(), "{first}");
        let (status, line) = logged
            .line(Method::POST, path, &headers, &Value::Null)
            .await;
        assert_eq!((status, &line["level"]), (429, &json!("INFO")));
        assert_eq!(
            (&line["policy"], &line["code"]),
            (&json!(policy), &json!(code))
        );
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(line[name], *value, "{name}: {line}");
        }
        assert_eq!(line.get("burst"), expected.get("burst"), "{line}");
        assert!(line["retry_after"].as_u64().unwrap() >= 1, "{line}");
    }
}

#[actix_web::test]
async fn limits_of_the_server_are_named_with_their_counter() {
    let gate = Gate::standard().server("reads", json!({ "limit": 1, "period": "1h" }));
    let logged = Logged::start(gate).await;
    let bearer = format!("Bearer {}", Token::of("user_1").sign());
    let headers = [("authorization", bearer.as_str())];
    let allowance = format!("{ROUTE}/allowance");
    let read = async || {
        logged
            .line(Method::GET, &allowance, &headers, &Value::Null)
            .await
    };
    let (status, line) = read().await;
    assert_eq!(status, 200, "{line}");
    assert_eq!(line["workspace"], "ws_1");
    let (status, line) = read().await;
    assert_eq!(status, 429, "{line}");
    assert_eq!(line["reason"], "[server] reads: the limit is reached");
    assert_eq!(line["limit_key"], "user=user_1");
    assert_eq!((&line["limit"], &line["window"]), (&json!(1), &json!("1h")));
    assert!(line["retry_after"].as_u64().unwrap() > 3000, "{line}");
}

#[actix_web::test]
async fn a_401_names_the_judge_the_issuer_and_the_key_id_but_no_token() {
    const ISSUER: &str = "https://id.example.com";
    let gate =
        Gate::accepting(["idp"]).identity("idp", jwt().issuer(ISSUER).audience(["imgwire-gate"]));
    let logged = Logged::start(gate).await;
    let of = |iss: &str, kid: &str| {
        let mut token = Token::of("user_1").with("iss", iss.into());
        token.header.kid = Some(kid.to_owned());
        token.with("secret_claim", "do not show".into())
    };
    let expired = of(ISSUER, "key-1").with("exp", 1_700_000_000.into());
    let wrong = of(ISSUER, "key-2").with("aud", "other".into());
    let foreign = of("https://other.example", "a\n\u{1b}[31m\"kid");
    let long = of(&"x".repeat(5000), &"k".repeat(5000));
    for (token, identity, issuer, kid, code, reason) in [
        (
            expired.sign(),
            json!("idp"),
            json!(ISSUER),
            json!("key-1"),
            "credentials_expired",
            "days ago",
        ),
        (
            wrong.sign(),
            json!("idp"),
            json!(ISSUER),
            json!("key-2"),
            "invalid_credentials",
            "`aud`",
        ),
        (
            foreign.sign(),
            Value::Null,
            json!("https://other.example"),
            json!(r#"a\n\u{1b}[31m\"kid"#),
            "invalid_credentials",
            "no accepted identity is addressed",
        ),
        (
            long.sign(),
            Value::Null,
            json!("x".repeat(100)),
            json!("k".repeat(100)),
            "invalid_credentials",
            "no accepted identity is addressed",
        ),
        (
            "opaque".to_owned(),
            Value::Null,
            Value::Null,
            Value::Null,
            "invalid_credentials",
            "the token is not a JWT",
        ),
    ] {
        let (status, line) = logged.ask(&token, Value::Null).await;
        assert_eq!((status, &line["code"]), (401, &json!(code)), "{line}");
        assert_eq!(line["identity"], identity, "{line}");
        assert_eq!((&line["issuer"], &line["kid"]), (&issuer, &kid), "{line}");
        assert!(line["reason"].as_str().unwrap().contains(reason), "{line}");
        let text = line.to_string();
        assert!(!text.contains(&token) || token == "opaque", "{text}");
        assert!(!text.contains("do not show"), "{text}");
        assert!(text.len() < 2000, "{text}");
    }
    // The endpoint of the session has the same fields.
    let gate = Gate::standard();
    let logged = Logged::start(gate).await;
    let bearer = format!(
        "Bearer {}",
        of(ISSUER, "key-3").with("exp", 1.into()).sign()
    );
    let headers = [("authorization", bearer.as_str())];
    let (status, line) = logged
        .line(Method::POST, SESSION, &headers, &Value::Null)
        .await;
    assert_eq!(status, 401, "{line}");
    assert_eq!(
        (&line["issuer"], &line["kid"]),
        (&json!(ISSUER), &json!("key-3"))
    );
    assert_eq!(line["identity"], "app");
    let headers = [
        ("cookie", "__Host-imgwire_gate=ended"),
        ("sec-fetch-site", "same-origin"),
    ];
    for method in [Method::GET, Method::DELETE] {
        let (status, line) = logged
            .line(method.clone(), SESSION, &headers, &Value::Null)
            .await;
        match method == Method::GET {
            true => assert_eq!(
                (status, &line["identity"]),
                (401, &json!("browser")),
                "{line}"
            ),
            // A session that has ended can be ended.
            false => assert_eq!(status, 204, "{line}"),
        }
    }
}

#[actix_web::test]
async fn a_403_names_its_cause() {
    let intent = upload_intent()
        .set("mime_types", ["image/png"])
        .set("max_size", "1KB");
    let gate = Gate::standard()
        .server("public_origin", "https://app.example.com")
        .policy(
            "owner",
            workspace_member().claim("workspaces").roles(["owner"]),
        )
        .policy("images", intent)
        .policy("paying", expression("subject.claims.plan == 'pro'"))
        .route("/owner", ["signed-in", "owner"])
        .route("/images", ["signed-in", "images"])
        .route("/paying", ["signed-in", "paying"]);
    let logged = Logged::start(gate).await;
    let token = Token::of("user_1").sign();
    let bearer = format!("Bearer {token}");
    let by_header = [("authorization", bearer.as_str())];
    let cookie = format!("__session={token}");
    let elsewhere = "https://evil.example";
    let long = format!("image/{}", "x".repeat(5000));
    let foreign = [
        ("cookie", cookie.as_str()),
        ("origin", elsewhere),
        ("sec-fetch-site", "cross-site"),
    ];
    for (path, headers, body, code, parts) in [
        (
            ROUTE,
            &foreign[..],
            Value::Null,
            "cross_site",
            &["`cross-site`", "`https://evil.example`"][..],
        ),
        (
            ROUTE,
            &by_header,
            json!({ "workspace": "ws_9" }),
            "workspace_forbidden",
            &["not a member", "`ws_9`"],
        ),
        (
            "/owner",
            &by_header,
            Value::Null,
            "workspace_forbidden",
            &["role", "`ws_1`"],
        ),
        (
            "/images",
            &by_header,
            json!({ "file": { "mimeType": "image/gif" } }),
            "file_type_forbidden",
            &["`image/gif`"],
        ),
        (
            "/images",
            &by_header,
            json!({ "file": { "mimeType": long } }),
            "file_type_forbidden",
            &["`image/xxx"],
        ),
        (
            "/images",
            &by_header,
            json!({ "file": { "mimeType": "image/png", "size": 5000 } }),
            "file_too_large",
            &["5000", "1000"],
        ),
        (
            "/images",
            &by_header,
            json!({ "file": { "mimeType": "image/png" } }),
            "file_required",
            &["size"],
        ),
        (
            "/paying",
            &by_header,
            Value::Null,
            "rule_forbidden",
            &["there is no `plan`"],
        ),
    ] {
        let (status, line) = logged.line(Method::POST, path, headers, &body).await;
        assert_eq!((status, &line["code"]), (403, &json!(code)), "{line}");
        let reason = line["reason"].as_str().unwrap();
        for part in parts {
            assert!(reason.contains(part), "{part}: {line}");
        }
        assert!(reason.len() < 400, "{line}");
        assert!(line["policy"].is_string(), "{line}");
    }
}

#[actix_web::test]
async fn a_malformed_request_names_what_is_wrong_with_it() {
    let logged = Logged::start(Gate::standard().server("body_limit", "1KiB")).await;
    let (post, get) = (Method::POST, Method::GET);
    let text = [("content-type", "text/plain")];
    let large = json!({ "purpose": "x".repeat(2000) });
    for (method, path, headers, body, status, reason) in [
        (
            &post,
            ROUTE,
            &[][..],
            json!({ "workspaceId": 1 }),
            400,
            Some("unknown field \"workspaceId\""),
        ),
        (&post, ROUTE, &[], large, 413, Some("1024 bytes")),
        (
            &post,
            ROUTE,
            &[("x-workspace-id", "")],
            Value::Null,
            400,
            Some("X-Workspace-Id is empty"),
        ),
        (&post, "/nowhere", &text, Value::Null, 404, None),
        (&get, ROUTE, &[], Value::Null, 405, None),
    ] {
        let (found, line) = logged.line(method.clone(), path, headers, &body).await;
        assert_eq!(found, status, "{line}");
        assert_eq!(
            (&line["target"], &line["level"]),
            (&json!("refused"), &json!("INFO"))
        );
        assert_eq!(
            (&line["method"], &line["path"]),
            (&json!(method.as_str()), &json!(path))
        );
        match reason {
            Some(reason) => assert!(line["reason"].as_str().unwrap().contains(reason), "{line}"),
            None => assert!(line.get("reason").is_none(), "{line}"),
        }
    }
}
