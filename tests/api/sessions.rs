//! The gate's own session cookie.

use std::time::Duration;

use actix_web::http::Method;
use serde_json::json;

use crate::helpers::{Gate, SESSION, SESSION_KEY, TestApp, Token, env};

async fn sign_in(app: &TestApp, token: &Token) -> String {
    let answer = app
        .request(Method::POST, SESSION)
        .bearer(&token.sign())
        .send()
        .await;
    assert_eq!(answer.status, 204, "{answer:?}");
    answer.cookie().to_owned()
}

#[actix_web::test]
async fn a_token_is_exchanged_for_a_session_that_can_upload() {
    let app = TestApp::start().await;
    let cookie = sign_in(&app, &Token::of("user_1")).await;
    app.ask()
        .header("cookie", &cookie)
        .send()
        .await
        .assert_token();
    let shown = app
        .request(Method::GET, SESSION)
        .header("cookie", &cookie)
        .send()
        .await;
    assert_eq!(
        (shown.status.as_u16(), &shown.json["subject"]),
        (200, &json!("user_1"))
    );
    let until: jiff::Timestamp = shown.json["expiresAt"].as_str().unwrap().parse().unwrap();
    assert!(until > jiff::Timestamp::now());
}

#[actix_web::test]
async fn the_session_cookie_is_encrypted_http_only_and_expires_with_the_session() {
    let app = TestApp::start().await;
    let answer = app
        .request(Method::POST, SESSION)
        .bearer(&Token::of("user_1").sign())
        .send()
        .await;
    let cookie = answer.header("set-cookie");
    for attribute in [
        "HttpOnly",
        "Secure",
        "SameSite=Lax",
        "Path=/",
        "Max-Age=43200",
    ] {
        assert!(cookie.contains(attribute), "{attribute} in {cookie}");
    }
    assert!(cookie.starts_with("__Host-imgwire_gate="));
    assert!(!cookie.contains("user_1") && !cookie.contains("ws_1"));
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[actix_web::test]
async fn each_sign_in_sets_a_new_cookie() {
    let app = TestApp::start().await;
    let first = sign_in(&app, &Token::of("user_1")).await;
    let token = Token::of("user_2").sign();
    let again = app
        .request(Method::POST, SESSION)
        .bearer(&token)
        .header("cookie", &first);
    let second = again.send().await.cookie().to_owned();
    assert_ne!(first, second);
    let shown = app
        .request(Method::GET, SESSION)
        .header("cookie", &second)
        .send()
        .await;
    assert_eq!(shown.json["subject"], "user_2");
}

#[actix_web::test]
async fn a_session_requires_a_valid_credential_of_another_identity() {
    let app = TestApp::start().await;
    let post = || app.request(Method::POST, SESSION);
    post().send().await.assert_error(401, "not_signed_in");
    post()
        .bearer("nonsense")
        .send()
        .await
        .assert_error(401, "invalid_credentials");
    let cookie = sign_in(&app, &Token::of("user_1")).await;
    post()
        .header("cookie", &cookie)
        .send()
        .await
        .assert_error(401, "not_signed_in");
    app.request(Method::GET, SESSION)
        .send()
        .await
        .assert_error(401, "not_signed_in");
}

#[actix_web::test]
async fn signing_out_removes_the_cookie() {
    let app = TestApp::start().await;
    let cookie = sign_in(&app, &Token::of("user_1")).await;
    let answer = app
        .request(Method::DELETE, SESSION)
        .header("cookie", &cookie)
        .send()
        .await;
    assert_eq!(answer.status, 204);
    assert!(
        answer
            .header("set-cookie")
            .starts_with("__Host-imgwire_gate=;")
    );
    assert!(answer.header("set-cookie").contains("Max-Age=0"));
    let again = app.request(Method::DELETE, SESSION).send().await;
    assert_eq!(again.status, 204);
}

#[actix_web::test]
async fn a_modified_cookie_is_not_signed_in() {
    let app = TestApp::start().await;
    let cookie = sign_in(&app, &Token::of("user_1")).await;
    let mut changed = cookie.clone();
    let last = if changed.pop() == Some('A') { 'B' } else { 'A' };
    changed.push(last);
    let truncated = &cookie[..cookie.len() / 2];
    for bad in [
        changed.as_str(),
        truncated,
        "__Host-imgwire_gate=nonsense",
        "__Host-imgwire_gate=user_1",
    ] {
        let answer = app.ask().header("cookie", bad).send().await;
        answer.assert_error(401, "not_signed_in");
        let fallen_through = app.ask().header("cookie", bad).send().await;
        fallen_through.assert_error(401, "not_signed_in");
    }
    let doubled = format!("{cookie}; {cookie}x");
    app.ask()
        .header("cookie", &doubled)
        .send()
        .await
        .assert_error(401, "invalid_credentials");
}

#[actix_web::test]
async fn a_session_cookie_of_another_key_is_not_signed_in() {
    let app = TestApp::start().await;
    let other = Gate::standard().secret("TEST_SESSION_KEY", &"another key".repeat(8));
    let other = other.start().await;
    let cookie = sign_in(&other, &Token::of("user_1")).await;
    app.ask()
        .header("cookie", &cookie)
        .send()
        .await
        .assert_error(401, "not_signed_in");
}

#[actix_web::test]
async fn a_session_ends_after_its_ttl_even_if_the_cookie_is_kept() {
    let app = Gate::standard().session("ttl", "10m").start().await;
    let cookie = sign_in(&app, &Token::of("user_1")).await;
    app.clock.advance(Duration::from_secs(599));
    app.ask()
        .header("cookie", &cookie)
        .send()
        .await
        .assert_token();
    app.clock.advance(Duration::from_secs(2));
    app.ask()
        .header("cookie", &cookie)
        .send()
        .await
        .assert_error(401, "credentials_expired");
}

#[actix_web::test]
async fn a_session_never_outlives_the_token_it_came_from() {
    let app = TestApp::start().await;
    let cookie = sign_in(&app, &Token::of("user_1")).await;
    app.clock.advance(Duration::from_secs(3601));
    app.ask()
        .header("cookie", &cookie)
        .send()
        .await
        .assert_error(401, "credentials_expired");
}

#[actix_web::test]
async fn a_session_keeps_the_claims_that_policies_need() {
    let app = TestApp::start().await;
    let token = Token::of("user_1").with("workspaces", json!(["ws_7"]));
    let cookie = sign_in(&app, &token).await;
    let request = app
        .ask()
        .header("cookie", &cookie)
        .header("x-workspace-id", "ws_7");
    request.send().await.assert_token();
    let request = app
        .ask()
        .header("cookie", &cookie)
        .header("x-workspace-id", "ws_1");
    request
        .send()
        .await
        .assert_error(403, "workspace_forbidden");
}

#[actix_web::test]
async fn a_rotated_session_key_keeps_sessions_while_the_previous_key_is_listed() {
    let app = TestApp::start().await;
    let cookie = sign_in(&app, &Token::of("user_1")).await;
    let rotated = |previous: &[&str]| {
        let previous: Vec<_> = previous.iter().map(|name| env(name)).collect();
        Gate::standard()
            .session("previous_keys", previous)
            .secret("TEST_SESSION_KEY", &"the-next-key.".repeat(8))
            .secret("TEST_FORMER_KEY", SESSION_KEY)
            .secret("TEST_OTHER_KEY", &"some-other-key.".repeat(8))
    };
    let next = rotated(&["TEST_OTHER_KEY", "TEST_FORMER_KEY"])
        .start()
        .await;
    let ask = async |app: &TestApp, cookie: &str| {
        let cookies = format!("first=1; {cookie}; last=2");
        app.ask().header("cookie", &cookies).send().await
    };
    ask(&next, &cookie).await.assert_token();
    let of_next = sign_in(&next, &Token::of("user_2")).await;
    ask(&next, &of_next).await.assert_token();
    ask(&app, &of_next).await.assert_error(401, "not_signed_in");
    let changed = format!("{}A", &cookie[..cookie.len() - 2]);
    ask(&next, &changed)
        .await
        .assert_error(401, "not_signed_in");

    let without = rotated(&["TEST_OTHER_KEY"]).start().await;
    ask(&without, &cookie)
        .await
        .assert_error(401, "not_signed_in");
}

#[actix_web::test]
async fn an_idle_session_ends_and_a_used_one_lasts_until_its_ttl() {
    let gate = Gate::standard()
        .session("ttl", "30m")
        .session("idle_ttl", "10m");
    let app = gate.start().await;
    let ask = async |cookie: &str| app.ask().header("cookie", cookie).send().await;
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let idle = sign_in(&app, &Token::of("user_1")).await;
    let mut used = idle.clone();
    for _ in 0..3 {
        app.clock.advance(minutes(9));
        let answer = ask(&used).await;
        answer.assert_token();
        used = answer.cookie().to_owned();
        assert!(used.starts_with("__Host-imgwire_gate="), "{answer:?}");
        // Right after a use, no new cookie is written.
        let again = ask(&used).await;
        again.assert_token();
        assert_eq!(again.header("set-cookie"), "");
    }
    ask(&idle).await.assert_error(401, "credentials_expired");
    app.clock.advance(minutes(4));
    ask(&used).await.assert_error(401, "credentials_expired");
}
