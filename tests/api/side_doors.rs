//! Every public endpoint is counted, limited and logged.

use std::time::Duration;

use actix_web::http::Method;
use futures_util::future::join_all;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    helpers::{
        Answer, Gate, ROUTE, Request, SESSION, TestApp, Token, eventually, introspection,
        published_jwt, remote_session,
    },
    service::{Reply, Service},
    signing::{SigningKey, set},
};

const INTROSPECT: &str = "/introspect";
const WHOAMI: &str = "/whoami";
const JWKS: &str = "/jwks";
const ALLOWANCE: &str = "/api/imgwire/upload-token/allowance";

/// Opaque tokens, published keys, and the app's own sessions. The test's client is a trusted proxy, so that a test can
/// send from many addresses.
fn builder(service: &Service, failures: u32) -> Gate {
    let at = |path: &str| format!("{}{path}", service.url);
    let site = remote_session(&at(WHOAMI), ["header:x-site"], "/id").ambient(false);
    Gate::accepting(["app", "idp", "opaque", "site", "browser"])
        .server("trusted_proxies", ["127.0.0.1"])
        .server("failures", json!({ "limit": failures, "period": "1m" }))
        .exchange(["app", "idp", "opaque", "site"])
        .identity("opaque", introspection(&at(INTROSPECT)).cache("1h"))
        .identity("site", site)
        .identity("idp", published_jwt(["ES256"], &at(JWKS)))
}

fn service() -> Service {
    let service = Service::start();
    service.answer(INTROSPECT, Reply::json(&json!({ "active": false })));
    service.answer(WHOAMI, Reply::status(401));
    service.answer(JWKS, Reply::json(&set(&[])));
    service
}

fn active() -> Reply {
    Reply::json(&json!({ "active": true, "sub": "user_1" }))
}

fn doors(app: &TestApp) -> [Request; 3] {
    [
        app.request(Method::POST, SESSION),
        app.request(Method::GET, ALLOWANCE),
        app.ask(),
    ]
}

async fn ask_from(app: &TestApp, address: &str, token: &str) -> Answer {
    let request = app.ask().header("x-forwarded-for", address).bearer(token);
    request.send().await
}

#[track_caller]
fn assert_limited(answer: &Answer) {
    answer.assert_error(429, "rate_limited");
    let retry_after: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&retry_after), "{retry_after}");
    assert!(answer.header("ratelimit").is_empty());
}

async fn exhaust(app: &TestApp, address: &str, failures: u32) {
    for number in 0..failures {
        let token = format!("bad-{address}-{number}");
        let answer = ask_from(app, address, &token).await;
        answer.assert_error(401, "invalid_credentials");
    }
    assert_limited(&ask_from(app, address, "one-more").await);
}

#[actix_web::test]
async fn failures_of_one_address_are_limited_across_all_endpoints() {
    let service = service();
    let app = builder(&service, 10).start().await;
    let mut limited = 0;
    for round in 0..20 {
        for (door, request) in doors(&app).into_iter().enumerate() {
            let token = format!("bad-{round}-{door}");
            let answer = request.bearer(&token).send().await;
            if answer.status == 429 {
                assert_limited(&answer);
                limited += 1;
            } else {
                answer.assert_error(401, "invalid_credentials");
            }
        }
    }
    assert_eq!(limited, 50);
    assert_eq!(service.seen(INTROSPECT).len(), 10);
    // The attempts return.
    app.clock.advance(Duration::from_secs(60));
    let answer = app.ask().bearer("bad").send().await;
    answer.assert_error(401, "invalid_credentials");
}

#[actix_web::test]
async fn concurrent_failures_are_limited_too() {
    let service = service();
    let inactive = Reply::json(&json!({ "active": false }));
    service.answer(INTROSPECT, inactive.after(Duration::from_millis(200)));
    let app = builder(&service, 10).start().await;
    let asking = (0..100).map(|number| {
        let door = doors(&app).into_iter().nth(number % 3).unwrap();
        door.bearer(&format!("bad-{number}")).send()
    });
    let answers = join_all(asking).await;
    assert_eq!(service.seen(INTROSPECT).len(), 10);
    let limited = answers.iter().filter(|answer| answer.status == 429);
    assert_eq!(limited.count(), 90);
}

#[actix_web::test]
async fn concurrent_valid_credentials_are_not_limited() {
    let service = service();
    service.answer(INTROSPECT, active().after(Duration::from_millis(50)));
    let app = builder(&service, 5).start().await;
    let asking = (0..40).map(|number| app.ask().bearer(&format!("good-{number}")).send());
    for answer in join_all(asking).await {
        answer.assert_token();
    }
    assert_eq!(service.seen(INTROSPECT).len(), 40);
}

#[actix_web::test]
async fn a_reset_connection_counts_as_a_failure() {
    let service = service();
    service.answer(INTROSPECT, active().after(Duration::from_secs(60)));
    let app = builder(&service, 5).start().await;
    for number in 0..5 {
        let stream = send_raw(&app.url, &format!("left-{number}")).await;
        eventually("the call", async || {
            service.seen(INTROSPECT).len() == number + 1
        })
        .await;
        stream.set_zero_linger().unwrap();
        drop(stream);
    }
    assert_limited(&app.ask().bearer("another").send().await);
    assert_eq!(service.seen(INTROSPECT).len(), 5);
}

/// Asks for a session without reading the answer.
async fn send_raw(url: &str, token: &str) -> TcpStream {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head =
        format!("POST {SESSION} HTTP/1.1\r\nhost: gate\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[actix_web::test]
async fn other_addresses_are_not_limited_and_an_ipv6_64_counts_as_one() {
    let service = service();
    let app = builder(&service, 5).start().await;
    exhaust(&app, "192.0.2.1", 5).await;
    exhaust(&app, "2001:db8:0:1::1", 5).await;
    assert_limited(&ask_from(&app, "2001:db8:0:1:ffff::2", "bad").await);
    service.answer(INTROSPECT, active());
    for address in ["192.0.2.2", "2001:db8:0:2::1"] {
        ask_from(&app, address, &format!("good-{address}"))
            .await
            .assert_token();
    }
}

#[actix_web::test]
async fn failed_lookups_of_the_app_count_as_failures() {
    let service = service();
    let app = builder(&service, 6).start().await;
    for number in 0..6 {
        let door = doors(&app).into_iter().nth(number % 3).unwrap();
        let answer = door.header("x-site", &number.to_string()).send().await;
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    for door in doors(&app) {
        assert_limited(&door.header("x-site", "more").send().await);
    }
    assert_eq!(service.seen(WHOAMI).len(), 6);
    assert_limited(&app.ask().bearer("opaque").send().await);
}

#[actix_web::test]
async fn past_the_limit_cached_answers_and_local_verification_still_work() {
    let service = service();
    service.answer(INTROSPECT, active());
    let app = builder(&service, 5).start().await;
    ask_from(&app, "192.0.2.1", "cached").await.assert_token();
    service.answer(INTROSPECT, Reply::json(&json!({ "active": false })));
    exhaust(&app, "192.0.2.1", 5).await;
    ask_from(&app, "192.0.2.1", "cached").await.assert_token();
    let token = Token::of("user_1");
    ask_from(&app, "192.0.2.1", &token.sign())
        .await
        .assert_token();
    // A bad signature is also judged locally.
    let forged = token.sign_with(&EncodingKey::from_secret(&[7; 64]));
    ask_from(&app, "192.0.2.1", &forged)
        .await
        .assert_error(401, "invalid_credentials");
}

#[actix_web::test]
async fn failed_signatures_count_and_expired_tokens_do_not() {
    let service = service();
    let app = builder(&service, 5).start().await;
    let expired = Token::of("user_1").with("exp", json!(1_000_000_000));
    for number in 0..20 {
        let expired = expired.clone().with("number", json!(number)).sign();
        ask_from(&app, "192.0.2.1", &expired)
            .await
            .assert_error(401, "credentials_expired");
    }
    // Requests that cost nothing do not count.
    for _ in 0..20 {
        app.ask().send().await.assert_error(401, "not_signed_in");
        let twice = app.ask().header("x-site", "one").header("x-site", "two");
        twice.send().await.assert_error(401, "invalid_credentials");
    }
    let expired = json!({ "active": true, "sub": "user_1", "exp": 1_000_000_000 });
    service.answer(INTROSPECT, Reply::json(&expired));
    for number in 0..20 {
        ask_from(&app, "192.0.2.1", &format!("expired-{number}"))
            .await
            .assert_error(401, "credentials_expired");
    }
    let forged = Token::of("user_1").sign_with(&EncodingKey::from_secret(&[7; 64]));
    let wrong_audience = Token::of("user_1").with("aud", json!("another")).sign();
    for token in [&forged, &wrong_audience, &forged, &forged, &forged] {
        ask_from(&app, "192.0.2.1", token)
            .await
            .assert_error(401, "invalid_credentials");
    }
    assert_limited(&ask_from(&app, "192.0.2.1", "opaque").await);
    service.answer(INTROSPECT, active());
    ask_from(&app, "192.0.2.2", "opaque").await.assert_token();
}

#[actix_web::test]
async fn faults_do_not_count_as_failures() {
    let service = service();
    service.answer(INTROSPECT, Reply::status(500));
    let app = builder(&service, 5).start().await;
    for number in 0..20 {
        let answer = app.ask().bearer(&format!("token-{number}")).send().await;
        answer.assert_error(500, "internal");
    }
}

#[actix_web::test]
async fn past_the_limit_an_address_causes_no_fetch_of_keys() {
    let service = service();
    let key = SigningKey::new("known", Algorithm::ES256);
    let new = SigningKey::new("new", Algorithm::ES256);
    service.answer(JWKS, Reply::json(&set(&[&key])));
    let app = builder(&service, 5).start().await;
    let token = key.sign(&Token::of("user_1"));
    ask_from(&app, "192.0.2.1", &token).await.assert_token();
    exhaust(&app, "192.0.2.1", 5).await;
    service.answer(JWKS, Reply::json(&set(&[&key, &new])));
    let fetches = service.seen(JWKS).len();
    // After the pause between fetches, each of these tokens would cause a fetch.
    app.clock.advance(Duration::from_secs(6));
    let by_new = new.sign(&Token::of("user_2"));
    assert_limited(&ask_from(&app, "192.0.2.1", &by_new).await);
    let replaced = SigningKey::new("known", Algorithm::ES256);
    let forged = replaced.sign(&Token::of("user_1"));
    assert_limited(&ask_from(&app, "192.0.2.1", &forged).await);
    assert_eq!(service.seen(JWKS).len(), fetches);
    let other = key.sign(&Token::of("user_3"));
    ask_from(&app, "192.0.2.1", &other).await.assert_token();
    // Another address causes the fetch, and then the key serves all.
    ask_from(&app, "192.0.2.2", &by_new).await.assert_token();
    ask_from(&app, "192.0.2.1", &by_new).await.assert_token();
}

#[actix_web::test]
async fn failure_counts_survive_a_reload_and_explain_is_not_limited() {
    let service = service();
    let app = builder(&service, 5).start().await;
    exhaust(&app, "127.0.0.1", 5).await;
    app.reload(&builder(&service, 5)).unwrap();
    assert_limited(&ask_from(&app, "127.0.0.1", "bad").await);
    let seen = service.seen(INTROSPECT).len();
    let explain = app.request_management(Method::POST, "/explain");
    let answer = explain
        .json(&json!({ "route": ROUTE, "token": "described" }))
        .await;
    assert_eq!(answer.json["code"], "invalid_credentials", "{answer:?}");
    assert_eq!(service.seen(INTROSPECT).len(), seen + 1);
}

#[actix_web::test]
async fn the_default_limit_is_120_failures_per_minute() {
    let service = service();
    let app = builder(&service, 1)
        .without("server.failures")
        .start()
        .await;
    for number in 0..130 {
        let session = app.request(Method::POST, SESSION);
        session.bearer(&format!("bad-{number}")).send().await;
    }
    let calls = service.seen(INTROSPECT).len();
    // A few attempts return while the test runs.
    assert!((120..130).contains(&calls), "{calls}");
    assert_eq!(app.ask().bearer("bad").send().await.status, 429);
}

#[actix_web::test]
async fn reads_are_limited_by_subject() {
    let service = service();
    let reads = json!({ "limit": 4, "period": "1m" });
    let app = builder(&service, 5).server("reads", reads).start().await;
    let token = Token::of("user_1").sign();
    let begun = app.request(Method::POST, SESSION).bearer(&token);
    let begun = begun.send().await;
    let session = begun.cookie().to_owned();
    let read = |token: &str, path: &str| app.request(Method::GET, path).bearer(token);
    let show = || {
        let show = app.request(Method::GET, SESSION).header("cookie", &session);
        show.header("sec-fetch-site", "same-origin")
    };
    for _ in 0..2 {
        assert_eq!(read(&token, ALLOWANCE).send().await.status, 200);
        assert_eq!(show().send().await.status, 200);
    }
    assert_limited(&read(&token, ALLOWANCE).send().await);
    assert_limited(&show().send().await);
    // Other subjects, other endpoints and anonymous requests are not limited.
    let other = Token::of("user_2").sign();
    assert_eq!(read(&other, ALLOWANCE).send().await.status, 200);
    app.ask().bearer(&token).send().await.assert_token();
    let again = app.request(Method::POST, SESSION).bearer(&token);
    assert_eq!(again.send().await.status, 204);
    for _ in 0..10 {
        let anonymous = app.request(Method::GET, ALLOWANCE).send().await;
        anonymous.assert_error(401, "not_signed_in");
    }
    app.clock.advance(Duration::from_secs(60));
    assert_eq!(read(&token, ALLOWANCE).send().await.status, 200);
}

#[actix_web::test]
async fn every_endpoint_counts_as_in_flight() {
    let service = service();
    service.answer(INTROSPECT, active().after(Duration::from_secs(60)));
    let app = builder(&service, 5)
        .server("max_in_flight", 1)
        .start()
        .await;
    for (number, door) in doors(&app).into_iter().enumerate() {
        let waiting = actix_web::rt::spawn(door.bearer(&format!("slow-{number}")).send());
        eventually("the request", async || {
            app.metric("imgwire_gate_in_flight").await == 1.0
        })
        .await;
        let others = [Method::GET, Method::DELETE].map(|method| app.request(method, SESSION));
        let turned_away = doors(&app).into_iter().chain(others).map(Request::send);
        for answer in join_all(turned_away).await {
            answer.assert_error(500, "overloaded");
            assert_eq!(answer.header("retry-after"), "1");
        }
        waiting.abort();
        if number < 2 {
            eventually("the place", async || {
                app.metric("imgwire_gate_in_flight").await == 0.0
            })
            .await;
        }
    }
}
