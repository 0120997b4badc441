//! Opaque tokens, about which the gate asks their issuer.

use std::time::Duration;

use actix_web::http::Method;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    helpers::{Answer, Gate, SESSION, TestApp, env, eventually, introspection},
    service::{Reply, Service},
};

const PATH: &str = "/introspect";

fn builder(issuer: &Service) -> Gate {
    let opaque = introspection(&format!("{}{PATH}", issuer.url));
    Gate::accepting(["opaque"])
        .exchange(["opaque"])
        .identity("opaque", opaque)
        .set("identities.opaque.client_secret", env("TEST_CLIENT_SECRET"))
        .secret("TEST_CLIENT_SECRET", "s3cret: with / odd + characters")
}

fn active() -> Value {
    json!({
        "active": true,
        "sub": "user_1",
        "client_id": "spa",
        "exp": jiff::Timestamp::now().as_second() + 3600,
        "workspaces": ["ws_1"],
    })
}

async fn ask(app: &TestApp, token: &str) -> Answer {
    app.ask().bearer(token).send().await
}

#[actix_web::test]
async fn an_active_token_is_accepted_and_an_inactive_one_is_refused() {
    let issuer = Service::start();
    issuer.answer(PATH, Reply::json(&active()));
    let app = builder(&issuer).start().await;
    ask(&app, "opaque").await.assert_token();
    issuer.answer(PATH, Reply::json(&json!({ "active": false })));
    let answer = ask(&app, "opaque").await;
    answer.assert_error(401, "invalid_credentials");
    assert_eq!(
        answer.header("www-authenticate"),
        "Bearer error=\"invalid_token\""
    );
    app.ask().send().await.assert_error(401, "not_signed_in");
}

#[actix_web::test]
async fn a_token_that_is_too_long_is_not_sent_and_the_reason_has_both_sizes() {
    let issuer = Service::start();
    issuer.answer(PATH, Reply::json(&active()));
    let app = builder(&issuer).start().await;
    let (longest, longer) = ("x".repeat(8192), "x".repeat(8193));
    ask(&app, &longest).await.assert_token();
    let answer = ask(&app, &longer).await;
    answer.assert_error(401, "invalid_credentials");
    let explain = app.request_management(Method::POST, "/explain");
    let explained = explain.json(&json!({ "token": longer })).await;
    let expected = "the token is too long: it has 8193 bytes, and the gate sends at most 8192";
    assert!(explained.text.contains(expected), "{explained:?}");
}

#[actix_web::test]
async fn the_gate_authenticates_in_the_header_or_in_the_form() {
    let issuer = Service::start();
    issuer.answer(PATH, Reply::json(&active()));
    let basic = builder(&issuer).start().await;
    ask(&basic, "a b&c").await.assert_token();
    let seen = issuer.seen(PATH).pop().unwrap();
    assert_eq!(seen.method, "POST");
    assert_eq!(seen.body, "token=a+b%26c&token_type_hint=access_token");
    // base64 of gate:s3cret%3A+with+%2F+odd+%2B+characters
    assert_eq!(
        seen.headers["authorization"],
        "Basic Z2F0ZTpzM2NyZXQlM0Erd2l0aCslMkYrb2RkKyUyQitjaGFyYWN0ZXJz"
    );
    assert_eq!(
        seen.headers["content-type"],
        "application/x-www-form-urlencoded"
    );

    let post = builder(&issuer).set("identities.opaque.auth_method", "client_secret_post");
    let post = post.start().await;
    ask(&post, "opaque").await.assert_token();
    let seen = issuer.seen(PATH).pop().unwrap();
    assert!(!seen.headers.contains_key("authorization"));
    assert_eq!(
        seen.body,
        "token=opaque&token_type_hint=access_token&client_id=gate\
         &client_secret=s3cret%3A+with+%2F+odd+%2B+characters"
    );
}

#[actix_web::test]
async fn the_claims_of_an_introspection_answer_are_checked() {
    let now = jiff::Timestamp::now().as_second();
    let issuer = Service::start();
    let app = builder(&issuer)
        .set("identities.opaque.issuer", "https://id.example.com")
        .set("identities.opaque.audience", ["imgwire-gate"])
        .set(
            "identities.opaque.required_claims",
            json!({ "client_id": "spa" }),
        )
        .start()
        .await;
    let mut good = active();
    good["iss"] = json!("https://id.example.com");
    good["aud"] = json!(["other", "imgwire-gate"]);
    issuer.answer(PATH, Reply::json(&good));
    ask(&app, "opaque").await.assert_token();
    for (member, value, code) in [
        ("iss", json!("https://evil.example"), "invalid_credentials"),
        ("iss", json!(null), "invalid_credentials"),
        ("aud", json!("other"), "invalid_credentials"),
        ("aud", json!([]), "invalid_credentials"),
        ("client_id", json!("other"), "invalid_credentials"),
        ("sub", json!(null), "invalid_credentials"),
        ("sub", json!(1.0), "invalid_credentials"),
        ("sub", json!(""), "invalid_credentials"),
        ("exp", json!(now - 60), "credentials_expired"),
        ("exp", json!("tomorrow"), "invalid_credentials"),
        ("nbf", json!(now + 3600), "invalid_credentials"),
    ] {
        let mut bad = good.clone();
        bad[member] = value.clone();
        issuer.answer(PATH, Reply::json(&bad));
        let answer = ask(&app, "opaque").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (401, code),
            "{member} {value}"
        );
    }
}

#[actix_web::test]
async fn an_issuer_that_fails_is_a_fault() {
    let issuer = Service::start();
    let app = builder(&issuer)
        .set("identities.opaque.timeout", "300ms")
        .set("identities.opaque.from", ["bearer", "header:x-opaque"])
        .start()
        .await;
    for reply in [
        Reply::status(401),
        Reply::status(500),
        Reply::status(302).header("location", "/elsewhere"),
        Reply::text("<html>"),
        Reply::text("{}"),
        Reply::json(&json!({ "active": "true" })),
        Reply::json(&json!([true])),
        Reply::text(&format!(
            "{{\"active\":true,\"sub\":\"{}\"}}",
            "x".repeat(100_000)
        )),
        Reply::json(&active()).after(Duration::from_secs(30)),
    ] {
        let shown: String = reply.body.chars().take(40).collect();
        issuer.answer(PATH, reply);
        let answer = ask(&app, "opaque").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (500, "internal"),
            "{shown}"
        );
    }
    let faults = r#"imgwire_gate_decisions_total{route="/api/imgwire/upload-token",outcome="faulted",policy="signed-in",code="internal"}"#;
    assert_eq!(app.metric(faults).await, 9.0);
    issuer.go_down().await;
    ask(&app, "opaque").await.assert_error(500, "internal");
    let session = app
        .request(Method::POST, SESSION)
        .header("x-opaque", "opaque");
    session.send().await.assert_error(500, "internal");
}

#[actix_web::test]
async fn an_answer_is_cached_but_never_past_the_expiry_of_the_token() {
    let issuer = Service::start();
    let mut answer = active();
    answer["exp"] = json!(jiff::Timestamp::now().as_second() + 100);
    issuer.answer(PATH, Reply::json(&answer));
    let app = builder(&issuer)
        .set("identities.opaque.cache", "1h")
        .set("identities.opaque.leeway", "0s")
        .start()
        .await;
    for _ in 0..3 {
        ask(&app, "opaque").await.assert_token();
    }
    assert_eq!(issuer.seen(PATH).len(), 1);
    ask(&app, "another").await.assert_token();
    assert_eq!(issuer.seen(PATH).len(), 2);
    app.clock.advance(Duration::from_secs(101));
    ask(&app, "opaque")
        .await
        .assert_error(401, "credentials_expired");

    answer["exp"] = json!(jiff::Timestamp::now().as_second() + 10_000);
    issuer.answer(PATH, Reply::json(&answer));
    app.clock.advance(Duration::from_secs(3600));
    ask(&app, "opaque").await.assert_token();
    assert_eq!(issuer.seen(PATH).len(), 3);
}

#[actix_web::test]
async fn without_a_cache_every_request_asks_the_issuer() {
    let issuer = Service::start();
    issuer.answer(PATH, Reply::json(&active()));
    let app = builder(&issuer).start().await;
    for _ in 0..3 {
        ask(&app, "opaque").await.assert_token();
    }
    assert_eq!(issuer.seen(PATH).len(), 3);
}

#[actix_web::test]
async fn a_negative_answer_is_cached_for_a_second_and_a_fault_is_not_cached() {
    let issuer = Service::start();
    issuer.answer(PATH, Reply::json(&json!({ "active": false })));
    let app = builder(&issuer)
        .set("identities.opaque.cache", "1h")
        .start()
        .await;
    for _ in 0..3 {
        ask(&app, "opaque")
            .await
            .assert_error(401, "invalid_credentials");
    }
    assert_eq!(issuer.seen(PATH).len(), 1);
    issuer.answer(PATH, Reply::status(500));
    app.clock.advance(Duration::from_secs(2));
    ask(&app, "opaque").await.assert_error(500, "internal");
    issuer.answer(PATH, Reply::json(&active()));
    ask(&app, "opaque").await.assert_token();
}

#[actix_web::test]
async fn concurrent_requests_with_one_token_ask_the_issuer_once() {
    let issuer = Service::start();
    issuer.answer(
        PATH,
        Reply::json(&active()).after(Duration::from_millis(500)),
    );
    let app = builder(&issuer)
        .set("identities.opaque.cache", "1m")
        .start()
        .await;
    for answer in join_all((0..50).map(|_| ask(&app, "opaque"))).await {
        answer.assert_token();
    }
    assert_eq!(issuer.seen(PATH).len(), 1);
    // Waiting requests share a fault, so that they wait for a dead issuer only once.
    issuer.answer(PATH, Reply::status(500).after(Duration::from_millis(500)));
    for answer in join_all((0..50).map(|_| ask(&app, "another"))).await {
        answer.assert_error(500, "internal");
    }
    eventually("all of them", async || issuer.seen(PATH).len() >= 2).await;
    assert!(issuer.seen(PATH).len() <= 4, "{}", issuer.seen(PATH).len());
}
