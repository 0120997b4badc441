//! New, replaced and withdrawn keys, and the fetches that unknown keys cause.

use std::{
    collections::VecDeque,
    io::Write as _,
    net::TcpStream,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use jsonwebtoken::Algorithm;
use serde_json::json;
use socket2::SockRef;

use crate::{
    helpers::{Emulator, ROUTE, TestApp, Token, eventually},
    keys::{JWKS, ask, by_url, gate_that_knows},
    process::{GateProcess, write_config},
    service::{Reply, Service},
    signing::{SigningKey, set},
};

/// A gate that has accepted a token of a key, that key, and the key with the same id that replaces it at the issuer.
async fn replaced_key(issuer: &Service) -> (TestApp, SigningKey, SigningKey) {
    let (old, new) = (
        SigningKey::new("same", Algorithm::ES256),
        SigningKey::new("same", Algorithm::ES256),
    );
    issuer.answer(JWKS, Reply::json(&set(&[&old])));
    let app = by_url(issuer).start().await;
    ask(&app, &old.sign(&Token::of("user_1")))
        .await
        .assert_token();
    issuer.answer(JWKS, Reply::json(&set(&[&new])));
    (app, old, new)
}

#[actix_web::test]
async fn a_new_key_is_accepted_at_its_first_use_and_a_withdrawn_key_is_refused() {
    let issuer = Service::start();
    let (old, new) = (
        SigningKey::new("old", Algorithm::ES256),
        SigningKey::new("new", Algorithm::ES256),
    );
    issuer.answer(JWKS, Reply::json(&set(&[&old])));
    let app = by_url(&issuer).start().await;
    let (by_old, by_new) = (
        old.sign(&Token::of("user_1")),
        new.sign(&Token::of("user_2")),
    );
    ask(&app, &by_old).await.assert_token();
    issuer.answer(JWKS, Reply::json(&set(&[&old, &new])));
    ask(&app, &by_new).await.assert_token();
    ask(&app, &by_old).await.assert_token();

    // The old key is withdrawn; later a token of a third key makes the gate fetch the keys again.
    issuer.answer(JWKS, Reply::json(&set(&[&new])));
    app.clock.advance(Duration::from_secs(31));
    let third = SigningKey::new("third", Algorithm::ES256);
    ask(&app, &third.sign(&Token::of("user_3")))
        .await
        .assert_error(401, "invalid_credentials");
    ask(&app, &by_old)
        .await
        .assert_error(401, "invalid_credentials");
    ask(&app, &by_new).await.assert_token();
}

#[actix_web::test]
async fn a_replaced_key_with_the_same_id_invalidates_tokens_of_the_old_key() {
    let issuer = Service::start();
    let (app, old, new) = replaced_key(&issuer).await;
    app.clock.advance(Duration::from_secs(24 * 60 * 60));
    let fetches = issuer.seen(JWKS).len();
    eventually("a fetch in the background", async || {
        issuer.seen(JWKS).len() > fetches
    })
    .await;
    let fresh = |user: &str| {
        let end = jiff::Timestamp::now().as_second() + 7 * 24 * 60 * 60;
        Token::of(user).with("exp", json!(end))
    };
    eventually("the new key", async || {
        ask(&app, &new.sign(&fresh("user_2"))).await.status == 200
    })
    .await;
    ask(&app, &old.sign(&fresh("user_1")))
        .await
        .assert_error(401, "invalid_credentials");
}

#[actix_web::test]
async fn ten_thousand_unknown_keys_cause_one_fetch_per_five_seconds() {
    let key = SigningKey::new("known", Algorithm::ES256);
    let (app, issuer) = gate_that_knows(&key).await;
    let mut stranger = SigningKey::new("unknown", Algorithm::ES256);
    let began = Instant::now();
    for chunk in 0..100 {
        let tokens: Vec<_> = (0..100)
            .map(|number| {
                stranger.kid = format!("unknown-{chunk}-{number}");
                stranger.sign(&Token::of("user_1"))
            })
            .collect();
        for answer in join_all(tokens.iter().map(|token| ask(&app, token))).await {
            answer.assert_error(401, "invalid_credentials");
        }
    }
    let fetches = issuer.seen(JWKS).len();
    let allowed = 2 + began.elapsed().as_secs() as usize / 5;
    assert!(
        (2..=allowed).contains(&fetches),
        "{fetches}: one at start, and one per five seconds"
    );
    // During the flood, a new key is accepted as soon as the next fetch is due.
    let new = SigningKey::new("new", Algorithm::ES256);
    issuer.answer(JWKS, Reply::json(&set(&[&key, &new])));
    app.clock.advance(Duration::from_secs(6));
    ask(&app, &new.sign(&Token::of("user_1")))
        .await
        .assert_token();
}

#[actix_web::test]
async fn fetches_for_a_key_that_stays_unknown_back_off() {
    let key = SigningKey::new("known", Algorithm::ES256);
    let (app, issuer) = gate_that_knows(&key).await;
    let stranger = SigningKey::new("unknown", Algorithm::ES256).sign(&Token::of("user_1"));
    let mut fetches = Vec::new();
    for _ in 0..20 {
        app.clock.advance(Duration::from_secs(6));
        ask(&app, &stranger)
            .await
            .assert_error(401, "invalid_credentials");
        fetches.push(issuer.seen(JWKS).len() - 1);
    }
    // Two at once, then pauses of 10, 20, 40 and 80 seconds.
    assert_eq!(fetches[..2], [1, 2], "{fetches:?}");
    assert!((4..=6).contains(&fetches[19]), "{fetches:?}");
    // Another key is fetched without a delay.
    let new = SigningKey::new("new", Algorithm::ES256);
    issuer.answer(JWKS, Reply::json(&set(&[&key, &new])));
    app.clock.advance(Duration::from_secs(6));
    ask(&app, &new.sign(&Token::of("user_1")))
        .await
        .assert_token();
}

#[actix_web::test]
async fn a_new_key_with_a_known_id_is_accepted_at_its_first_use() {
    let issuer = Service::start();
    let (app, old, new) = replaced_key(&issuer).await;
    ask(&app, &new.sign(&Token::of("user_2")))
        .await
        .assert_token();
    ask(&app, &old.sign(&Token::of("user_1")))
        .await
        .assert_error(401, "invalid_credentials");
    // Forged tokens with a known key id also cause at most one fetch per five seconds.
    let forged = SigningKey::new("same", Algorithm::ES256).sign(&Token::of("user_3"));
    let before = issuer.seen(JWKS).len();
    for _ in 0..20 {
        ask(&app, &forged)
            .await
            .assert_error(401, "invalid_credentials");
    }
    assert!(issuer.seen(JWKS).len() <= before + 1);
}

#[actix_web::test]
async fn an_empty_key_set_withdraws_all_keys() {
    let issuer = Service::start();
    let key = SigningKey::new("one", Algorithm::ES256);
    issuer.answer(JWKS, Reply::json(&set(&[&key])));
    let app = by_url(&issuer).start().await;
    let token = key.sign(&Token::of("user_1"));
    ask(&app, &token).await.assert_token();
    issuer.answer(JWKS, Reply::json(&json!({ "keys": [] })));
    let stranger = SigningKey::new("unknown", Algorithm::ES256).sign(&Token::of("user_1"));
    ask(&app, &stranger)
        .await
        .assert_error(401, "invalid_credentials");
    ask(&app, &token)
        .await
        .assert_error(401, "invalid_credentials");
}

#[actix_web::test]
async fn tokens_of_known_keys_do_not_wait_for_the_fetch_that_an_unknown_key_causes() {
    let key = SigningKey::new("known", Algorithm::ES256);
    let (app, issuer) = gate_that_knows(&key).await;
    let slow = Duration::from_secs(3);
    issuer.answer(JWKS, Reply::json(&set(&[&key])).after(slow));
    let stranger = SigningKey::new("unknown", Algorithm::ES256).sign(&Token::of("user_1"));
    let waiting = async {
        let started = Instant::now();
        ask(&app, &stranger)
            .await
            .assert_error(401, "invalid_credentials");
        assert!(started.elapsed() >= slow);
    };
    let others = async {
        eventually("the fetch", async || issuer.seen(JWKS).len() == 2).await;
        let started = Instant::now();
        for number in 0..50 {
            let token = key.sign(&Token::of(&format!("user_{number}")));
            ask(&app, &token).await.assert_token();
        }
        assert!(started.elapsed() < slow, "{:?}", started.elapsed());
    };
    futures_util::future::join(waiting, others).await;
}

#[actix_web::test]
async fn clients_that_leave_while_they_wait_for_keys_free_their_places() {
    let issuer = Service::start();
    let imgwire = Emulator::start().unwrap();
    let (key, new) = (
        SigningKey::new("known", Algorithm::ES256),
        SigningKey::new("new", Algorithm::ES256),
    );
    issuer.answer(JWKS, Reply::json(&set(&[&key])));
    let (_folder, config) = write_config(&by_url(&issuer), imgwire.url());
    let gate = GateProcess::start_with(&config, &[], "info", &[]).await;
    assert_eq!(gate.ask(&key.sign(&Token::of("user_1"))).await, Some(200));
    let slow = Duration::from_millis(4500);
    issuer.answer(JWKS, Reply::json(&set(&[&key, &new])).after(slow));
    let stranger = SigningKey::new("unknown", Algorithm::ES256).sign(&Token::of("user_1"));
    let request = format!(
        "GET {ROUTE}/allowance HTTP/1.1\r\nhost: gate\r\nauthorization: Bearer {stranger}\r\n\r\n"
    );
    let url = gate.url();
    let address = url.strip_prefix("http://").unwrap();
    let began = Instant::now();
    let mut clients = VecDeque::new();
    eventually("more clients to leave than may wait", async || {
        // A slow gate must read each request before its client leaves.
        for _ in 0..8 {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(request.as_bytes()).unwrap();
            clients.push_back(client);
        }
        while clients.len() > 400 {
            let client = clients.pop_front().unwrap();
            SockRef::from(&client)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
        // Parsing every line each time would take longer than the clients wait.
        gate.log().matches("client disconnected").count() > 1000
    })
    .await;
    assert!(began.elapsed() < slow, "{:?}", began.elapsed());
    drop(clients);
    assert_eq!(gate.ask(&new.sign(&Token::of("user_2"))).await, Some(200));
}

#[actix_web::test]
async fn requests_that_wait_for_keys_do_not_count_as_in_flight() {
    let issuer = Service::start();
    let key = SigningKey::new("known", Algorithm::ES256);
    issuer.answer(JWKS, Reply::json(&set(&[&key])));
    let app = by_url(&issuer).server("max_in_flight", 2).start().await;
    let token = key.sign(&Token::of("user_1"));
    ask(&app, &token).await.assert_token();
    let slow = Duration::from_secs(3);
    issuer.answer(JWKS, Reply::json(&set(&[&key])).after(slow));
    let stranger = SigningKey::new("unknown", Algorithm::ES256).sign(&Token::of("user_1"));
    let waiting = join_all((0..20).map(|_| ask(&app, &stranger)));
    let others = async {
        eventually("the fetch", async || issuer.seen(JWKS).len() == 2).await;
        let began = Instant::now();
        for _ in 0..10 {
            ask(&app, &token).await.assert_token();
        }
        assert!(began.elapsed() < slow, "{:?}", began.elapsed());
    };
    let (waited, ()) = futures_util::future::join(waiting, others).await;
    for answer in waited {
        answer.assert_error(401, "invalid_credentials");
    }
    assert_eq!(app.metric("imgwire_gate_in_flight").await, 0.0);
}
