//! Where credentials may be: empty, repeated and unrelated ones.

use actix_web::http::{Method, header::HeaderValue};
use jsonwebtoken::EncodingKey;
use serde_json::json;

use crate::{
    helpers::{Gate, SESSION, TestApp, Token, forwarded, jwt, remote_session},
    service::{Reply, Service},
};

/// A gate that reads JWTs, sessions, an app's cookie and header, and a proxy's header.
async fn every_place(service: &Service) -> TestApp {
    service.answer("/session", Reply::json(&json!({ "id": "user_1" })));
    let url = format!("{}/session", service.url);
    let tokens = jwt().from(["bearer", "header:x-token", "cookie:token"]);
    Gate::accepting(["tokens", "browser", "site", "edge"])
        .server("trusted_proxies", ["127.0.0.1"])
        .identity("tokens", tokens)
        .identity(
            "site",
            remote_session(&url, ["cookie:site", "header:x-site"], "/id"),
        )
        .identity("edge", forwarded("X-User"))
        .start()
        .await
}

#[actix_web::test]
async fn empty_and_unrelated_credentials_are_ignored() {
    let service = Service::start();
    let app = every_place(&service).await;
    let token = Token::of("user_1").sign();
    let latin1 = header_of(b"name=J\xfcrgen");
    for (name, value) in [
        ("x-token", header_of(b"")),
        ("x-token", header_of(b" ")),
        ("x-token", header_of(b"Bearer")),
        ("x-token", header_of(b"Bearer ")),
        ("x-site", header_of(b"")),
        ("x-user", header_of(b"")),
        ("authorization", header_of(b"Bearer")),
        ("authorization", header_of(b"Bearer ")),
        ("authorization", header_of(b"")),
        ("authorization", header_of(b"Basic dXNlcjpwYXNz")),
        ("authorization", header_of(b"Basic \xfc")),
        ("x-other", header_of(b"\xff")),
        ("cookie", header_of(b"token=; site=; imgwire_gate=")),
        ("cookie", header_of(b"token")),
        ("cookie", header_of(b";;=;token2=a;site =")),
        ("cookie", latin1.clone()),
    ] {
        let shown = format!("{name}: {value:?}");
        let answer = app.ask().header_value(name, value.clone()).send().await;
        answer.assert_error(401, "not_signed_in");
        assert_eq!(answer.header("www-authenticate"), "Bearer", "{shown}");
        // Before and after a good one.
        let good = app.ask().header_value(name, value.clone());
        let answer = good.header("x-token", &token).send().await;
        assert_eq!(answer.status, 200, "{shown}: {answer:?}");
        let good = app.ask().header("x-site", "good").header_value(name, value);
        let answer = good.send().await;
        assert_eq!(answer.status, 200, "{shown}: {answer:?}");
    }
    assert!(
        service
            .seen("/session")
            .iter()
            .all(|seen| seen.headers.contains_key("x-site"))
    );
}

fn header_of(bytes: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(bytes).unwrap()
}

#[actix_web::test]
async fn a_second_credential_in_one_place_is_401_unless_it_is_empty() {
    let service = Service::start();
    let app = every_place(&service).await;
    let token = Token::of("user_1").sign();
    for (name, good, empty) in [
        ("authorization", format!("Bearer {token}"), "Bearer "),
        ("authorization", format!("Bearer {token}"), "Basic abc"),
        ("x-token", token.clone(), ""),
        ("x-token", token.clone(), "Bearer"),
        ("cookie", format!("token={token}"), "token="),
        ("cookie", "site=good".to_owned(), "site="),
        ("x-site", "good".to_owned(), ""),
    ] {
        for [first, second] in [[good.as_str(), empty], [empty, good.as_str()]] {
            let request = app.ask().header(name, first).header(name, second);
            let answer = request.send().await;
            assert_eq!(answer.status, 200, "{name}: {first:?}, {second:?}");
            if name == "cookie" {
                let both = format!("{first}; {second}");
                let request = app.ask().header(name, &both);
                request.send().await.assert_token();
            }
        }
        let twice = app.ask().header(name, &good).header(name, &good);
        twice.send().await.assert_error(401, "invalid_credentials");
    }
    // A proxy that adds an empty header may have kept the client's: there the second header counts.
    let request = app.ask().header("x-user", "admin").header("x-user", "");
    request
        .send()
        .await
        .assert_error(401, "invalid_credentials");
}

#[actix_web::test]
async fn a_token_in_another_header_may_have_the_bearer_scheme() {
    let service = Service::start();
    let app = every_place(&service).await;
    let token = Token::of("user_1").sign();
    for value in [
        token.clone(),
        format!("Bearer {token}"),
        format!("bearer  {token} "),
    ] {
        let request = app.ask().header("x-token", &value);
        request.send().await.assert_token();
    }
    let other = app.ask().header("x-token", &format!("Token {token}"));
    other.send().await.assert_error(401, "invalid_credentials");
    // A cookie has no scheme, and the app gets its header unchanged.
    let cookie = format!("token=Bearer {token}");
    let request = app.ask().header("cookie", &cookie);
    request
        .send()
        .await
        .assert_error(401, "invalid_credentials");
    let request = app.ask().header("x-site", "Bearer good");
    request.send().await.assert_token();
    let seen = service.seen("/session").pop().unwrap();
    assert_eq!(seen.headers["x-site"], "Bearer good");
}

#[actix_web::test]
async fn a_token_that_addresses_no_identity_does_not_hide_a_credential_elsewhere() {
    let service = Service::start();
    let app = every_place(&service).await;
    let token = Token::of("user_1").sign();
    let signed_in = app.request(Method::POST, SESSION);
    let session = signed_in.bearer(&token).send().await.cookie().to_owned();
    for (name, value) in [
        ("x-token", token.as_str()),
        ("cookie", &format!("token={token}")),
        ("cookie", &session),
        ("cookie", "site=good"),
        ("x-user", "user_1"),
    ] {
        // An API key, or a token of another app, which the gate ignores.
        let request = app.ask().bearer("opaque").header(name, value);
        request.send().await.assert_token();
        // A token that addresses `tokens` in an earlier place is judged, good or bad.
        let bad = Token::of("user_1").sign_with(&EncodingKey::from_secret(&[7; 64]));
        let request = app.ask().bearer(&bad).header(name, value);
        request
            .send()
            .await
            .assert_error(401, "invalid_credentials");
    }
}
