//! Issuers that are down, hang, or publish invalid key sets.

use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::{
    helpers::{Token, eventually},
    keys::{JWKS, ask, by_url, is_ready},
    service::{Reply, Service},
    signing::{SigningKey, set},
};

#[actix_web::test]
async fn the_last_good_keys_serve_while_the_issuer_is_down() {
    let issuer = Service::start();
    let (key, new) = (
        SigningKey::new("known", Algorithm::ES256),
        SigningKey::new("new", Algorithm::ES256),
    );
    issuer.answer(JWKS, Reply::json(&set(&[&key])));
    let app = by_url(&issuer).start().await;
    let token = key.sign(&Token::of("user_1"));
    ask(&app, &token).await.assert_token();
    issuer.go_down().await;
    // While the gate has keys, a key that is not among them is unknown.
    let by_new = new.sign(&Token::of("user_2"));
    ask(&app, &by_new)
        .await
        .assert_error(401, "invalid_credentials");
    ask(&app, &token).await.assert_token();
    let ready = app.manage("/readyz").await;
    assert_eq!(
        (ready.status.as_u16(), &ready.json["degraded"]),
        (200, &json!(["identities.idp"]))
    );
    let stale = r#"imgwire_gate_identity_keys_stale{identity="idp"}"#;
    assert_eq!(app.metric(stale).await, 1.0);
    assert!(
        app.metric(r#"imgwire_gate_identity_calls_total{identity="idp",result="fault"}"#)
            .await
            >= 1.0
    );

    issuer.answer(JWKS, Reply::json(&set(&[&key, &new])));
    let _issuer = issuer.come_back().await;
    eventually("the recovery", async || {
        ask(&app, &by_new).await.status == 200
    })
    .await;
    assert_eq!(app.metric(stale).await, 0.0);
    assert_eq!(
        app.metric(r#"imgwire_gate_identity_keys{identity="idp"}"#)
            .await,
        2.0
    );
}

#[actix_web::test]
async fn a_gate_that_starts_without_its_issuer_is_not_ready_until_the_issuer_returns() {
    let issuer = Service::start();
    let key = SigningKey::new("one", Algorithm::ES256);
    issuer.answer(JWKS, Reply::json(&set(&[&key])));
    issuer.go_down().await;
    let app = by_url(&issuer).start().await;
    let token = key.sign(&Token::of("user_1"));
    ask(&app, &token).await.assert_error(500, "internal");
    let ready = app.manage("/readyz").await;
    assert_eq!(
        (ready.status.as_u16(), &ready.json["failing"]),
        (503, &json!(["identities.idp"]))
    );
    let _issuer = issuer.come_back().await;
    eventually("the recovery", async || {
        ask(&app, &token).await.status == 200
    })
    .await;
    assert!(is_ready(&app).await);
}

/// Answers of an issuer that are not key sets.
fn nonsense() -> Vec<Reply> {
    let many: Vec<Value> = (0..10_000)
        .map(|number| json!({ "kty": "EC", "crv": "P-256", "kid": number.to_string(), "x": "AA", "y": "AA" }))
        .collect();
    vec![
        Reply::text("<html><body>Sign in</body></html>").header("content-type", "text/html"),
        Reply::text(&" ".repeat(10 << 20)),
        Reply::json(&json!({ "keys": many })),
        Reply::json(&json!({ "keys": "none" })),
        Reply::json(&json!([])),
        Reply::text(""),
        Reply::status(503),
        Reply::status(302).header("location", "/elsewhere"),
    ]
}

#[actix_web::test]
async fn an_invalid_key_set_is_a_fault_at_start_and_changes_nothing_later() {
    let issuer = Service::start();
    let key = SigningKey::new("one", Algorithm::ES256);
    issuer.answer("/elsewhere", Reply::json(&set(&[&key])));
    issuer.answer(JWKS, Reply::json(&set(&[&key])));
    let serving = by_url(&issuer).start().await;
    let token = key.sign(&Token::of("user_1"));
    ask(&serving, &token).await.assert_token();
    let stranger = SigningKey::new("unknown", Algorithm::ES256).sign(&Token::of("user_1"));
    for reply in nonsense() {
        issuer.answer(JWKS, reply);
        let starting = by_url(&issuer).start().await;
        ask(&starting, &token).await.assert_error(500, "internal");
        assert!(!is_ready(&starting).await);

        serving.clock.advance(Duration::from_secs(31));
        ask(&serving, &stranger)
            .await
            .assert_error(401, "invalid_credentials");
        ask(&serving, &token).await.assert_token();
        assert!(is_ready(&serving).await);
    }
}

#[actix_web::test]
async fn an_issuer_that_hangs_delays_a_request_for_at_most_twelve_seconds() {
    let issuer = Service::start();
    let key = SigningKey::new("one", Algorithm::ES256);
    let hanging = Reply::json(&set(&[&key])).after(Duration::from_secs(60));
    issuer.answer(JWKS, hanging);
    let app = by_url(&issuer).start().await;
    let token = key.sign(&Token::of("user_1"));
    let started = Instant::now();
    ask(&app, &token).await.assert_error(500, "internal");
    assert!(started.elapsed() < Duration::from_secs(12));
    // The fetch at start and the fetch that this token caused have failed: now the answer comes at once.
    ask(&app, &token).await.assert_error(500, "internal");
    let started = Instant::now();
    ask(&app, &token).await.assert_error(500, "internal");
    assert!(started.elapsed() < Duration::from_secs(2));
}
