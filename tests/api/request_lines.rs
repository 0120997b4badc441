//! The log line of each request of the public listener.

use std::time::Duration;

use actix_web::http::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    helpers::{Emulator, Gate, ROUTE, SESSION, Token, eventually, introspection, remote_decision},
    process::{GateProcess, write_config},
    service::{Reply, Service},
};

/// A gate in its own process, whose issuer reports every token as inactive.
struct Logged {
    gate: GateProcess,
    _imgwire: Emulator,
    issuer: Service,
    _folder: tempfile::TempDir,
}

impl Logged {
    async fn start(level: &str) -> Self {
        Self::start_with(|gate| gate, level).await
    }

    /// The same after a change of the config.
    async fn start_with(change: impl FnOnce(Gate) -> Gate, level: &str) -> Self {
        let issuer = Service::start();
        issuer.answer("/introspect", Reply::json(&json!({ "active": false })));
        let opaque = introspection(&format!("{}/introspect", issuer.url));
        let broken = introspection(&format!("{}/broken", issuer.url));
        let gate = Gate::accepting(["app", "opaque", "broken", "browser"])
            .exchange(["app", "opaque", "broken"])
            .identity("opaque", opaque)
            .identity("broken", broken.from(["header:x-broken"]).ambient(false));
        Self {
            issuer,
            ..Self::start_gate(change(gate), level).await
        }
    }

    async fn start_gate(gate: Gate, level: &str) -> Self {
        let imgwire = Emulator::start().unwrap();
        let (folder, path) = write_config(&gate, imgwire.url());
        Self {
            gate: GateProcess::start_with(&path, &[], level, &[]).await,
            _imgwire: imgwire,
            issuer: Service::start(),
            _folder: folder,
        }
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], id: &str) -> u16 {
        let client = awc::Client::default();
        let mut request = client.request(method, format!("{}{path}", self.gate.url()));
        request = request.insert_header(("x-request-id", id));
        for header in headers {
            request = request.append_header(*header);
        }
        request.send().await.unwrap().status().as_u16()
    }

    /// The lines of a request, as soon as there is one.
    async fn lines_of(&self, id: &str) -> Vec<Value> {
        let lines = || {
            let lines = self.gate.lines().into_iter();
            let lines = lines.filter(|line| line["request_id"] == id);
            lines.collect::<Vec<_>>()
        };
        eventually("the line", async || !lines().is_empty()).await;
        lines()
    }
}

/// A request by its method, path and headers; the status, and the other fields of its line.
type Sent<'a> = (Method, &'a str, &'a [(&'a str, &'a str)], u16, Value);

#[actix_web::test]
async fn every_request_has_one_line_with_its_fields() {
    let origins = ["https://app.example.com"];
    let logged = Logged::start_with(|gate| gate.server("allowed_origins", origins), "info").await;
    let token = format!("Bearer {}", Token::of("user_1").sign());
    let good = [("authorization", token.as_str())];
    let bad = [("authorization", "Bearer opaque")];
    let broken = [("x-broken", "token")];
    let allowance = format!("{ROUTE}/allowance");
    let long = format!("/nowhere/{}", "x".repeat(1000));
    let reason = "identity `opaque`: the token is not active";
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let user = json!({ "identity": "app", "subject": "user_1" });
    let denied = json!({ "identity": "opaque", "code": "invalid_credentials", "reason": reason });
    let anonymous = json!({ "code": "not_signed_in", "reason": "the request has no credential" });
    let requests: Vec<Sent<'_>> = vec![
        (post.clone(), ROUTE, &good, 200, user.clone()),
        (post.clone(), ROUTE, &bad, 401, denied.clone()),
        (
            post.clone(),
            ROUTE,
            &broken,
            500,
            json!({ "code": "internal" }),
        ),
        (get.clone(), &allowance, &good, 200, user.clone()),
        (get.clone(), &allowance, &bad, 401, denied.clone()),
        (get.clone(), &allowance, &[], 401, anonymous.clone()),
        (
            get.clone(),
            &allowance,
            &broken,
            500,
            json!({ "code": "internal" }),
        ),
        (post.clone(), SESSION, &good, 204, user),
        (post.clone(), SESSION, &bad, 401, denied),
        (
            post.clone(),
            SESSION,
            &broken,
            500,
            json!({ "code": "internal" }),
        ),
        (get.clone(), SESSION, &[], 401, anonymous),
        (delete, SESSION, &[], 204, json!({})),
        (
            get.clone(),
            ROUTE,
            &good,
            405,
            json!({ "code": "method_not_allowed" }),
        ),
        (
            Method::PUT,
            SESSION,
            &[],
            405,
            json!({ "code": "method_not_allowed" }),
        ),
        (
            get.clone(),
            "/nowhere?secret=1",
            &[],
            404,
            json!({ "code": "not_found" }),
        ),
        (get, &long, &[], 404, json!({ "code": "not_found" })),
        (
            post,
            ROUTE,
            &[("x-workspace-id", "")],
            400,
            json!({ "code": "bad_request" }),
        ),
        (
            Method::OPTIONS,
            ROUTE,
            &[],
            405,
            json!({ "code": "method_not_allowed" }),
        ),
    ];
    let count = requests.len();
    for (number, (method, path, headers, status, fields)) in requests.into_iter().enumerate() {
        let id = format!("request-{number}");
        let shown = format!("{method} {path} {headers:?}");
        assert_eq!(
            logged.send(method.clone(), path, headers, &id).await,
            status,
            "{shown}"
        );
        let lines = logged.lines_of(&id).await;
        assert_eq!(lines.len(), 1, "{shown}: {lines:?}");
        let line = &lines[0];
        assert_eq!(line["status"], status, "{shown}: {line}");
        assert_eq!(line["client"], "127.0.0.1", "{shown}: {line}");
        let level = if status < 500 { "INFO" } else { "ERROR" };
        assert_eq!(line["level"], level, "{shown}: {line}");
        let bare = path.split('?').next().unwrap();
        if line["target"] == "decision" {
            assert_eq!(line["route"], ROUTE);
        } else {
            assert_eq!(line["method"], method.as_str(), "{shown}: {line}");
            assert_eq!(line["path"], bare[..bare.len().min(200)], "{shown}: {line}");
            if bare.starts_with(ROUTE) {
                assert_eq!(line["route"], ROUTE, "{shown}: {line}");
            }
        }
        for name in ["code", "identity", "subject", "reason"] {
            if status == 500 && name == "reason" {
                let reason = line["reason"].as_str().unwrap();
                assert!(reason.contains("status"), "{shown}: {line}");
            } else if !(bare == ROUTE && name == "reason" && fields.get("reason").is_none()) {
                assert_eq!(line.get(name), fields.get(name), "{shown}: {line}");
            }
        }
    }
    // No request gets another line later.
    for number in 0..count {
        let lines = logged.lines_of(&format!("request-{number}")).await;
        assert_eq!(lines.len(), 1, "{lines:?}");
    }
}

#[actix_web::test]
async fn a_tolerated_fault_is_a_warning() {
    let moderation = remote_decision("http://127.0.0.1:9/").on_failure("allow");
    let gate = Gate::accepting(["app"])
        .policy("moderation", moderation)
        .chain(["signed-in", "moderation"]);
    let logged = Logged::start_gate(gate, "info").await;
    let token = format!("Bearer {}", Token::of("user_1").sign());
    let headers = [("authorization", token.as_str())];
    let sent = logged.send(Method::POST, ROUTE, &headers, "tolerated");
    assert_eq!(sent.await, 200);
    let mut levels = Vec::new();
    eventually("both lines", async || {
        let lines = logged.lines_of("tolerated").await;
        levels = lines.iter().map(|line| line["level"].clone()).collect();
        levels.len() == 2
    })
    .await;
    assert_eq!(levels, ["INFO", "WARN"]);
}

#[actix_web::test]
async fn a_session_that_its_store_cannot_keep_has_one_line() {
    let gate = Gate::standard()
        .session("store", "shared")
        .store("shared", json!({ "url": "redis://127.0.0.1:9" }));
    let logged = Logged::start_gate(gate, "info").await;
    let token = format!("Bearer {}", Token::of("user_1").sign());
    let headers = [("authorization", token.as_str())];
    let sent = logged.send(Method::POST, SESSION, &headers, "unkept");
    assert_eq!(sent.await, 500);
    let lines = logged.lines_of("unkept").await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["level"], "ERROR");
    assert_eq!(lines[0]["path"], SESSION);
    assert_eq!(lines[0]["client"], "127.0.0.1");
    assert_eq!(lines[0]["code"], "internal");
    assert!(!lines[0]["reason"].as_str().unwrap().is_empty());
}

#[actix_web::test]
async fn a_malformed_body_has_a_line() {
    let logged = Logged::start_with(|gate| gate.server("body_limit", "1KiB"), "info").await;
    let client = awc::Client::default();
    for (id, content_type, body, status, code) in [
        (
            "large",
            "application/json",
            "x".repeat(2000),
            413,
            "body_too_large",
        ),
        (
            "text",
            "text/plain",
            "{}".into(),
            415,
            "unsupported_media_type",
        ),
        (
            "nonsense",
            "application/json",
            "{".into(),
            400,
            "bad_request",
        ),
    ] {
        let request = client.post(format!("{}{ROUTE}", logged.gate.url()));
        let request = request.insert_header(("x-request-id", id));
        let request = request.insert_header(("content-type", content_type));
        let answer = request.send_body(body).await.unwrap();
        assert_eq!(answer.status(), status);
        let lines = logged.lines_of(id).await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0]["code"], code);
        assert_eq!(lines[0]["status"], status);
        assert_eq!(lines[0]["level"], "INFO");
    }
}

#[actix_web::test]
async fn a_reset_connection_has_a_line() {
    let logged = Logged::start("info").await;
    let slow = Reply::json(&json!({ "active": false })).after(Duration::from_secs(60));
    logged.issuer.answer("/introspect", slow);
    let url = logged.gate.url();
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap())
        .await
        .unwrap();
    let head = format!(
        "POST {SESSION} HTTP/1.1\r\nhost: gate\r\nx-request-id: left\r\nauthorization: Bearer opaque\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    eventually("the call", async || {
        !logged.issuer.seen("/introspect").is_empty()
    })
    .await;
    stream.set_zero_linger().unwrap();
    drop(stream);
    let lines = logged.lines_of("left").await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["message"], "client disconnected");
    assert_eq!(lines[0]["path"], SESSION);
    assert_eq!(lines[0]["client"], "127.0.0.1");
    assert!(lines[0].get("status").is_none());
}

#[actix_web::test]
async fn a_connection_that_is_reset_within_a_body_has_a_line() {
    let logged = Logged::start("info").await;
    let url = logged.gate.url();
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap())
        .await
        .unwrap();
    let head = format!(
        "POST {ROUTE} HTTP/1.1\r\nhost: gate\r\nx-request-id: left\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // After the interim response, the handler waits for the body.
    stream.read_exact(&mut [0; 25]).await.unwrap();
    stream.write_all(b"{").await.unwrap();
    stream.set_zero_linger().unwrap();
    drop(stream);
    let lines = logged.lines_of("left").await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    // Depending on timing, the gate reads the end of the body or the end of the connection first.
    let message = lines[0]["message"].as_str().unwrap();
    assert!(
        ["client disconnected", "refused"].contains(&message),
        "{message}"
    );
    assert_eq!(lines[0]["route"], ROUTE);
}

#[actix_web::test]
async fn preflights_have_a_line_only_at_debug() {
    let origins = ["https://app.example.com"];
    let headers = [
        ("origin", "https://app.example.com"),
        ("access-control-request-method", "POST"),
    ];
    for (level, lines) in [("info", 0), ("info,request=debug", 1)] {
        let logged =
            Logged::start_with(|gate| gate.server("allowed_origins", origins), level).await;
        let sent = logged.send(Method::OPTIONS, ROUTE, &headers, "preflight");
        assert_eq!(sent.await, 200);
        logged.send(Method::GET, "/nowhere", &[], "after").await;
        logged.lines_of("after").await;
        let all = logged.gate.lines();
        let found = all.iter().filter(|line| line["request_id"] == "preflight");
        assert_eq!(found.count(), lines, "{level}");
    }
}

#[actix_web::test]
async fn the_failure_limit_is_off_behind_an_unnamed_proxy_with_one_warning() {
    let failures = json!({ "limit": 3, "period": "1m" });
    let logged = Logged::start_with(|gate| gate.server("failures", failures), "info").await;
    let warnings = || {
        let lines = logged.gate.lines().into_iter();
        let lines = lines.filter(|line| line["level"] == "WARN");
        let lines = lines.filter(|line| line["message"].as_str().unwrap().contains("failures"));
        lines.collect::<Vec<_>>()
    };
    let bearer = ("authorization", "Bearer opaque");
    for number in 0..12 {
        let header = [
            "x-forwarded-for",
            "forwarded",
            "x-real-ip",
            "x-forwarded-proto",
        ][number % 4];
        let headers = [bearer, (header, "192.0.2.1")];
        let id = format!("proxied-{number}");
        assert_eq!(logged.send(Method::POST, SESSION, &headers, &id).await, 401);
        let line = &logged.lines_of(&id).await[0];
        assert_eq!(line["client"], "127.0.0.1");
    }
    eventually("the warning", async || !warnings().is_empty()).await;
    let found = warnings();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["peer"], "127.0.0.1");
    // The limit applies to requests without forwarding headers.
    for number in 0..5 {
        let status = logged
            .send(Method::POST, SESSION, &[bearer], "direct")
            .await;
        assert_eq!(status, if number < 3 { 401 } else { 429 });
    }
    assert_eq!(warnings().len(), 1);
}
