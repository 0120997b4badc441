//! Integers are ids of users and workspaces: `7` and `"7"` are the same, wherever they come from.

use std::collections::BTreeMap;

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::{
    helpers::{
        Answer, Gate, ROUTE, SESSION, TestApp, Token, expression, forwarded, introspection, jwt,
        quota, remote_session, workspace_member,
    },
    members::sqlite,
    service::{Reply, Service},
};

/// Numbers that are no ids: the digits of some are not known exactly, and the others are written as fractions.
const NOT_IDS: [&str; 6] = ["7.0", "7.5", "7e0", "1e3", "-0", "18446744073709551616"];

/// A token whose payload has this text as its `claim`.
fn with_text(claim: &str, text: &str) -> String {
    let value: Value = serde_json::from_str(text).unwrap();
    Token::of("user_1").with(claim, value).sign()
}

async fn subject(app: &TestApp, cookie: &str) -> String {
    let request = app.request(Method::GET, SESSION).header("cookie", cookie);
    request.send().await.json["subject"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[actix_web::test]
async fn the_subject_of_a_jwt_is_a_text_or_an_integer() {
    for (prefix, text, id) in [
        ("", "7", "7"),
        ("", "\"7\"", "7"),
        ("", "-7", "-7"),
        ("", "0", "0"),
        ("", "18446744073709551615", "18446744073709551615"),
        ("app:", "7", "app:7"),
    ] {
        let gate = Gate::accepting(["app", "browser"]).exchange(["app"]);
        let gate = if prefix.is_empty() {
            gate
        } else {
            gate.set("identities.app.subject_prefix", prefix)
        };
        let app = gate.start().await;
        let token = with_text("sub", text);
        app.ask().bearer(&token).send().await.assert_token();
        let request = app.request(Method::POST, SESSION).bearer(&token);
        let session = request.send().await;
        assert_eq!(subject(&app, session.cookie()).await, id, "{text}");
    }
    let app = Gate::accepting(["app"]).start().await;
    for text in NOT_IDS {
        let answer = app.ask().bearer(&with_text("sub", text)).send().await;
        answer.assert_error(401, "invalid_credentials");
    }
}

/// One quota for each user, whatever way the user's id comes.
#[actix_web::test]
async fn one_user_is_the_same_by_every_identity() {
    let issuer = Service::start();
    issuer.answer(
        "/introspect",
        Reply::json(&json!({ "active": true, "sub": 7 })),
    );
    issuer.answer("/session", Reply::json(&json!({ "id": 7 })));
    let gate = Gate::accepting(["app", "opaque", "site", "edge"])
        .server("trusted_proxies", ["127.0.0.1"])
        .identity("app", jwt().audience(["imgwire-gate"]))
        .identity(
            "opaque",
            introspection(&format!("{}/introspect", issuer.url)),
        )
        .identity(
            "site",
            remote_session(&format!("{}/session", issuer.url), ["header:x-sid"], "/id"),
        )
        .identity("edge", forwarded("X-User"))
        .policy("daily", quota().per(["user"]).limit(5))
        .chain(["signed-in", "daily"])
        .start()
        .await;
    let requests = [
        gate.ask().bearer(&with_text("sub", "7")),
        gate.ask().bearer(&with_text("sub", "\"7\"")),
        gate.ask().bearer("opaque"),
        gate.ask().header("x-sid", "1"),
        gate.ask().header("x-user", "7"),
    ];
    for request in requests {
        request.send().await.assert_token();
    }
    assert_eq!(gate.manage("/quota/daily?key=7").await.json["used"], 5);
    for number in NOT_IDS {
        let text = format!("{{\"active\":true,\"sub\":{number},\"id\":{number}}}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        issuer.answer("/introspect", Reply::json(&answer));
        issuer.answer("/session", Reply::json(&answer));
        let opaque = gate.ask().bearer("opaque").send().await;
        opaque.assert_error(401, "invalid_credentials");
        let site = gate.ask().header("x-sid", "1").send().await;
        site.assert_error(500, "internal");
    }
}

fn with_member(member: Value) -> Gate {
    Gate::accepting(["app"])
        .set("policies.member", member)
        .set("policies.member.kind", "workspace_member")
        .policy(
            "rule",
            expression("workspace.id == '7' && workspace.role == 'owner'"),
        )
        .policy("daily", quota().per(["workspace"]).limit(100))
        .chain(["signed-in", "member", "rule", "daily"])
}

/// Asks for workspace 7 in each way that a request can name it.
async fn ask_for_seven(app: &TestApp, token: &str) -> Vec<Answer> {
    let mut answers = Vec::new();
    for body in ["{\"workspace\":7}", "{\"workspace\":\"7\"}"] {
        let request = app.ask().bearer(token);
        let request = request.header("content-type", "application/json");
        answers.push(request.send_body(body).await);
    }
    let request = app.ask().bearer(token).header("x-workspace-id", "7");
    answers.push(request.send().await);
    answers
}

#[actix_web::test]
async fn one_workspace_is_the_same_by_every_source() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(
        folder.path(),
        "create table members (user_id integer, workspace_id integer, role text);
         insert into members values (7, 7, 'owner');",
    );
    let service = Service::start();
    let member = json!({ "role": "owner", "workspace": 7 });
    service.answer("/workspaces/7/members/7", Reply::json(&member));
    let table = BTreeMap::from([("7", BTreeMap::from([("7", "owner")]))]);
    let query = "select role, workspace_id from members where user_id = $1 and workspace_id = $2";
    for member in [
        json!({ "claim": "integers" }),
        json!({ "claim": "texts" }),
        json!({ "claim": "map" }),
        json!({ "claim": "/one/id", "role_claim": "/one/role" }),
        json!({ "members": table }),
        json!({ "store": "app", "query": query }),
        json!({ "url": format!("{}/workspaces/{{workspace}}/members/{{user}}", service.url) }),
    ] {
        let app = with_member(member.clone())
            .store("app", json!({ "url": url, "timeout": "2s" }))
            .start()
            .await;
        let token = Token::of("user_1")
            .with("sub", json!(7))
            .with("integers", json!([{ "id": 7, "role": "owner" }]))
            .with("texts", json!([{ "id": "7", "role": "owner" }]))
            .with("map", json!({ "7": "owner" }))
            .with("one", json!({ "id": 7, "role": "owner" }))
            .sign();
        for answer in ask_for_seven(&app, &token).await {
            answer.assert_token();
        }
        let used = app.manage("/quota/daily?key=7").await;
        assert_eq!(used.json["used"], 3, "{member}");
        let claims = json!({ "integers": [{ "id": 7, "role": "owner" }], "texts": [{ "id": 7, "role": "owner" }],
            "map": { "7": "owner" }, "one": { "id": "7", "role": "owner" } });
        for id in [json!(7), json!("7")] {
            let request = app.request_management(Method::POST, "/explain");
            let described = json!({ "subject": { "id": id, "claims": claims }, "workspace": id });
            let explained = request.json(&described).await;
            assert_eq!(
                explained.json["outcome"], "allow",
                "{member}: {explained:?}"
            );
        }
    }
}

#[actix_web::test]
async fn numbers_that_are_no_ids_are_refused_in_bodies_and_ignored_in_claims() {
    let app = Gate::accepting(["app"])
        .policy("member", workspace_member().claim("workspaces"))
        .chain(["signed-in", "member"])
        .start()
        .await;
    for number in NOT_IDS {
        let request = app
            .ask()
            .bearer(&with_text("workspaces", &format!("[{number}]")));
        let answer = request.send().await;
        answer.assert_error(403, "workspace_required");
        let request = app.ask().bearer(&Token::of("user_1").sign());
        let request = request.header("content-type", "application/json");
        let answer = request
            .send_body(format!("{{\"workspace\":{number}}}"))
            .await;
        answer.assert_error(400, "bad_request");
        let request = app.request_management(Method::POST, "/explain");
        let request = request.header("content-type", "application/json");
        let body = format!("{{\"subject\":{{\"id\":{number}}}}}");
        request
            .send_body(body)
            .await
            .assert_error(400, "bad_request");
    }
    // The text of a header or a body is the id, byte for byte.
    let request = app
        .request(Method::POST, ROUTE)
        .bearer(&with_text("workspaces", "[7]"));
    let answer = request.header("x-workspace-id", "07").send().await;
    answer.assert_error(403, "workspace_forbidden");
}
