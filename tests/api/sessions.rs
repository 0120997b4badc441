//! The gate's own session cookie.

use std::time::Duration;

use actix_web::http::Method;
use serde_json::json;

use crate::helpers::{Recipe, SESSION, TestApp, Token};

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
async fn a_token_is_exchanged_for_a_session_that_uploads() {
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
async fn the_cookie_is_private_http_only_and_ends_with_the_session() {
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
async fn the_cookie_is_another_one_after_each_sign_in() {
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
async fn nobody_gets_a_session_without_a_good_credential_of_another_identity() {
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
async fn signing_out_takes_the_cookie_away() {
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
async fn a_cookie_that_was_changed_is_not_signed_in() {
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
async fn a_session_of_another_key_is_not_signed_in() {
    let app = TestApp::start().await;
    let mut recipe = Recipe::default();
    recipe
        .secrets
        .insert("TEST_SESSION_KEY".into(), "another key".repeat(8));
    let other = recipe.start().await;
    let cookie = sign_in(&other, &Token::of("user_1")).await;
    app.ask()
        .header("cookie", &cookie)
        .send()
        .await
        .assert_error(401, "not_signed_in");
}

#[actix_web::test]
async fn a_session_ends_when_its_time_is_over_though_the_cookie_is_kept() {
    let recipe = Recipe {
        session: "ttl = \"10m\"".into(),
        ..Recipe::default()
    };
    let app = recipe.start().await;
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
async fn the_session_keeps_the_claims_that_policies_need() {
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
async fn a_change_of_the_key_signs_nobody_out_while_the_previous_one_is_named() {
    let app = TestApp::start().await;
    let cookie = sign_in(&app, &Token::of("user_1")).await;
    let rotated = |previous: &str| {
        let session = format!("previous_keys = {previous}");
        let recipe = Recipe {
            session,
            ..Recipe::default()
        };
        recipe
            .with_secret("TEST_SESSION_KEY", &"the next key ".repeat(8))
            .with_secret("TEST_FORMER_KEY", crate::helpers::SESSION_KEY)
            .with_secret("TEST_OTHER_KEY", &"some other key ".repeat(8))
    };
    let with_both = r#"[{ env = "TEST_OTHER_KEY" }, { env = "TEST_FORMER_KEY" }]"#;
    let next = rotated(with_both).start().await;
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

    let without = rotated(r#"[{ env = "TEST_OTHER_KEY" }]"#).start().await;
    ask(&without, &cookie)
        .await
        .assert_error(401, "not_signed_in");
}

#[actix_web::test]
async fn a_session_ends_when_it_is_idle_and_lasts_while_it_is_used_but_not_past_its_time() {
    let recipe = Recipe {
        session: "ttl = \"30m\"\nidle_ttl = \"10m\"".into(),
        ..Recipe::default()
    };
    let app = recipe.start().await;
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
        // Just used: nothing new is written.
        let again = ask(&used).await;
        again.assert_token();
        assert_eq!(again.header("set-cookie"), "");
    }
    ask(&idle).await.assert_error(401, "credentials_expired");
    app.clock.advance(minutes(4));
    ask(&used).await.assert_error(401, "credentials_expired");
}
