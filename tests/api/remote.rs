//! Sessions of the app, about which the gate asks the app.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::{
    helpers::{Answer, Gate, TestApp, remote_session, workspace_member},
    service::{Reply, Service},
};

const PATH: &str = "/api/auth/session";

fn builder(app: &Service) -> Gate {
    let forward = ["cookie:authjs.session-token", "header:x-app-key"];
    let site = remote_session(&format!("{}{PATH}", app.url), forward, "/user/id");
    let claims = json!({ "workspaces": "/user/workspaces", "name": "/user/full~1name" });
    Gate::accepting(["site"])
        .identity("site", site.claims(claims))
        .policy("member", workspace_member().claim("workspaces"))
        .chain(["signed-in", "member"])
}

fn session() -> Reply {
    Reply::json(&json!({ "user": { "id": "user_1", "workspaces": ["ws_1"] } }))
}

async fn ask(gate: &TestApp) -> Answer {
    let request = gate.ask().header("cookie", "authjs.session-token=abc%20d");
    request.send().await
}

#[actix_web::test]
async fn only_the_named_cookies_and_headers_are_forwarded() {
    let app = Service::start();
    app.answer(PATH, session());
    let gate = builder(&app).start().await;
    let request = gate
        .ask()
        .header(
            "cookie",
            "other=secret; authjs.session-token=abc%20d; more=secret",
        )
        .header("x-app-key", "key")
        .header("x-other", "secret")
        .header("authorization", "Bearer secret");
    request.send().await.assert_token();
    let seen = app.seen(PATH).pop().unwrap();
    assert_eq!(seen.method, "GET");
    assert_eq!(seen.headers["cookie"], "authjs.session-token=abc%20d");
    assert_eq!(seen.headers["x-app-key"], "key");
    assert!(!format!("{seen:?}").contains("secret"), "{seen:?}");
    assert!(seen.headers["user-agent"].starts_with("imgwire-gate/"));
}

#[actix_web::test]
async fn a_request_without_forwarded_credentials_is_401_and_does_not_reach_the_app() {
    let app = Service::start();
    app.answer(PATH, session());
    let gate = builder(&app).start().await;
    let request = gate
        .ask()
        .header("cookie", "other=1; authjs.session-token=");
    request.send().await.assert_error(401, "not_signed_in");
    assert!(app.seen(PATH).is_empty());
}

#[actix_web::test]
async fn the_answer_of_the_app_decides_who_is_signed_in() {
    let app = Service::start();
    let gate = builder(&app).start().await;
    let workspaces = json!(["ws_1"]);
    for (reply, status, code) in [
        (session(), 200, ""),
        (
            Reply::json(&json!({ "user": { "id": 17, "workspaces": workspaces } })),
            200,
            "",
        ),
        (Reply::json(&json!(null)), 401, "not_signed_in"),
        (Reply::json(&json!({})), 401, "not_signed_in"),
        (Reply::json(&json!({ "user": null })), 401, "not_signed_in"),
        (
            Reply::json(&json!({ "user": { "id": null } })),
            401,
            "not_signed_in",
        ),
        (Reply::status(401), 401, "not_signed_in"),
        (Reply::status(403), 401, "not_signed_in"),
        (Reply::status(404), 401, "not_signed_in"),
        (
            Reply::json(&json!({ "user": { "id": "user_1" } })),
            403,
            "workspace_required",
        ),
        (
            Reply::json(&json!({ "user": { "id": "" } })),
            500,
            "internal",
        ),
        (
            Reply::json(&json!({ "user": { "id": 1.5 } })),
            500,
            "internal",
        ),
        (
            Reply::json(&json!({ "user": { "id": ["user_1"] } })),
            500,
            "internal",
        ),
        (Reply::text("<html>sign in</html>"), 500, "internal"),
        (Reply::text(""), 401, "not_signed_in"),
        (Reply::text(" \n"), 401, "not_signed_in"),
        (Reply::status(204), 401, "not_signed_in"),
        (Reply::status(419), 401, "not_signed_in"),
        (Reply::status(201), 500, "internal"),
        (Reply::status(400), 500, "internal"),
        (Reply::status(429), 500, "internal"),
        (Reply::status(503), 500, "internal"),
        (
            Reply::status(302).header("location", "/signin"),
            500,
            "internal",
        ),
        (Reply::status(500), 500, "internal"),
        (
            Reply::text(&format!("\"{}\"", "x".repeat(100_000))),
            500,
            "internal",
        ),
    ] {
        let shown = reply.body.chars().take(60).collect::<String>();
        app.answer("/signin", session());
        app.answer(PATH, reply);
        let answer = ask(&gate).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (status, code),
            "{shown}"
        );
    }
    assert!(app.seen("/signin").is_empty(), "a redirect is not followed");
}

#[actix_web::test]
async fn an_app_that_hangs_or_is_down_is_a_fault() {
    let app = Service::start();
    app.answer(PATH, session().after(Duration::from_secs(30)));
    let gate = builder(&app)
        .set("identities.site.timeout", "200ms")
        .start()
        .await;
    ask(&gate).await.assert_error(500, "internal");
    app.go_down().await;
    ask(&gate).await.assert_error(500, "internal");
}

#[actix_web::test]
async fn answers_are_cached_by_the_forwarded_credentials() {
    let app = Service::start();
    app.answer(PATH, session());
    let gate = builder(&app)
        .set("identities.site.cache", "10s")
        .start()
        .await;
    for _ in 0..3 {
        ask(&gate).await.assert_token();
    }
    assert_eq!(app.seen(PATH).len(), 1);
    let other = gate.ask().header("cookie", "authjs.session-token=other");
    other.send().await.assert_token();
    let both = gate
        .ask()
        .header("cookie", "authjs.session-token=abc%20d")
        .header("x-app-key", "key");
    both.send().await.assert_token();
    assert_eq!(app.seen(PATH).len(), 3);
    gate.clock.advance(Duration::from_secs(11));
    app.answer(PATH, Reply::status(401));
    ask(&gate).await.assert_error(401, "not_signed_in");
}

#[actix_web::test]
async fn concurrent_requests_with_one_credential_ask_the_app_once() {
    let app = Service::start();
    app.answer(PATH, session().after(Duration::from_millis(500)));
    let gate = builder(&app)
        .set("identities.site.cache", "10s")
        .start()
        .await;
    for answer in join_all((0..50).map(|_| ask(&gate))).await {
        answer.assert_token();
    }
    assert_eq!(app.seen(PATH).len(), 1);
}
