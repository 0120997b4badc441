//! Keys that an issuer publishes: how they are found, how they change, and everything that goes wrong.

use std::{
    collections::VecDeque,
    io::Write as _,
    net::TcpStream,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use imgwire_gate::sandbox::emulator::Emulator;
use jsonwebtoken::Algorithm;
use proptest::{prelude::*, strategy::ValueTree as _};
use serde_json::{Value, json};
use socket2::SockRef;

use crate::{
    helpers::{ROUTE, Recipe, TestApp, Token, eventually},
    process::{GateProcess, write_config},
    service::{Reply, Service},
    signing::{SigningKey, set},
};

const JWKS: &str = "/jwks";
const DISCOVERY: &str = "/.well-known/openid-configuration";

fn by_url(issuer: &Service) -> Recipe {
    by_url_with(issuer, r#"["RS256", "ES256", "EdDSA"]"#)
}

/// A gate that has used this key, which its issuer publishes alone.
async fn gate_that_knows(key: &SigningKey) -> (TestApp, Service) {
    let issuer = Service::start();
    issuer.answer(JWKS, Reply::json(&set(&[key])));
    let app = by_url(&issuer).start().await;
    ask(&app, &key.sign(&Token::of("user_1")))
        .await
        .assert_token();
    (app, issuer)
}

fn by_url_with(issuer: &Service, algorithms: &str) -> Recipe {
    let identities = format!(
        r#"
        [identities.idp]
        kind = "jwt"
        algorithms = {algorithms}
        jwks_url = "{}{JWKS}"
        audience = ["imgwire-gate"]
        "#,
        issuer.url
    );
    Recipe::accepting(r#"["idp"]"#, &identities)
}

fn by_discovery(issuer: &Service) -> Recipe {
    let identities = format!(
        r#"
        [identities.idp]
        kind = "jwt"
        algorithms = ["ES256"]
        issuer = "{}"
        discovery = true
        audience = ["imgwire-gate"]
        "#,
        issuer.url
    );
    Recipe::accepting(r#"["idp"]"#, &identities)
}

async fn ask(app: &TestApp, token: &str) -> crate::helpers::Answer {
    app.ask().bearer(token).send().await
}

async fn is_ready(app: &TestApp) -> bool {
    app.manage("/readyz").await.status == 200
}

#[actix_web::test]
async fn each_family_of_published_keys_is_believed() {
    let issuer = Service::start();
    for algorithm in [
        Algorithm::RS256,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::ES256,
        Algorithm::EdDSA,
    ] {
        let key = SigningKey::new("one", algorithm);
        issuer.answer(JWKS, Reply::json(&set(&[&key])));
        let app = by_url_with(&issuer, &format!(r#"["{algorithm:?}"]"#))
            .start()
            .await;
        ask(&app, &key.sign(&Token::of("user_1")))
            .await
            .assert_token();
    }
}

#[actix_web::test]
async fn discovery_finds_the_keys_of_the_issuer() {
    let issuer = Service::start();
    let key = SigningKey::new("one", Algorithm::ES256);
    let metadata = json!({ "issuer": issuer.url, "jwks_uri": format!("{}{JWKS}", issuer.url) });
    issuer.answer(DISCOVERY, Reply::json(&metadata));
    issuer.answer(JWKS, Reply::json(&set(&[&key])));
    let app = by_discovery(&issuer).start().await;
    let token = Token::of("user_1").with("iss", json!(issuer.url));
    ask(&app, &key.sign(&token)).await.assert_token();
    let other = token.with("iss", json!("https://evil.example"));
    ask(&app, &key.sign(&other))
        .await
        .assert_error(401, "invalid_credentials");
}

#[actix_web::test]
async fn a_discovery_document_of_another_issuer_or_with_keys_elsewhere_is_not_believed() {
    for metadata in [
        json!({ "issuer": "https://evil.example", "jwks_uri": "JWKS" }),
        json!({ "issuer": "ISSUER/", "jwks_uri": "JWKS" }),
        json!({ "issuer": "ISSUER", "jwks_uri": "http://keys.example.com/jwks" }),
        json!({ "issuer": "ISSUER", "jwks_uri": "file:///etc/passwd" }),
        json!({ "issuer": "ISSUER" }),
        json!("nonsense"),
    ] {
        let issuer = Service::start();
        let key = SigningKey::new("one", Algorithm::ES256);
        let metadata = metadata
            .to_string()
            .replace("ISSUER", &issuer.url)
            .replace("JWKS", &format!("{}{JWKS}", issuer.url));
        issuer.answer(DISCOVERY, Reply::text(&metadata));
        issuer.answer(JWKS, Reply::json(&set(&[&key])));
        let app = by_discovery(&issuer).start().await;
        let token = Token::of("user_1").with("iss", json!(issuer.url));
        ask(&app, &key.sign(&token))
            .await
            .assert_error(500, "internal");
        assert!(!is_ready(&app).await);
    }
}

#[actix_web::test]
async fn a_key_set_may_stand_in_a_file() {
    let key = SigningKey::new("one", Algorithm::ES256);
    let other = SigningKey::new("one", Algorithm::ES256);
    let identities = r#"
        [identities.idp]
        kind = "jwt"
        algorithms = ["ES256"]
        jwks = { env = "TEST_JWKS" }
        audience = ["imgwire-gate"]
    "#;
    let recipe = Recipe::accepting(r#"["idp"]"#, identities);
    let recipe = recipe.with_secret("TEST_JWKS", &set(&[&key]).to_string());
    let app = recipe.start().await;
    let token = Token::of("user_1");
    ask(&app, &key.sign(&token)).await.assert_token();
    ask(&app, &other.sign(&token))
        .await
        .assert_error(401, "invalid_credentials");
}

#[actix_web::test]
async fn a_new_key_works_at_its_first_use_and_one_that_left_works_no_more() {
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

    // The old one leaves; a while later a token of a third key makes the gate look again.
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
async fn a_key_of_a_known_id_but_other_material_ends_what_the_first_one_signed() {
    let issuer = Service::start();
    let (old, new) = (
        SigningKey::new("same", Algorithm::ES256),
        SigningKey::new("same", Algorithm::ES256),
    );
    issuer.answer(JWKS, Reply::json(&set(&[&old])));
    let app = by_url(&issuer).start().await;
    let by_old = old.sign(&Token::of("user_1"));
    ask(&app, &by_old).await.assert_token();
    issuer.answer(JWKS, Reply::json(&set(&[&new])));
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
async fn ten_thousand_unknown_keys_cost_the_issuer_one_fetch_in_five_seconds() {
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
        "{fetches}: one at start, and one in five seconds for all of them"
    );
    // In the flood a new key works as soon as the next fetch is due.
    let new = SigningKey::new("new", Algorithm::ES256);
    issuer.answer(JWKS, Reply::json(&set(&[&key, &new])));
    app.clock.advance(Duration::from_secs(6));
    ask(&app, &new.sign(&Token::of("user_1")))
        .await
        .assert_token();
}

#[actix_web::test]
async fn a_key_that_fetch_after_fetch_lacks_leads_to_one_ever_more_rarely() {
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
    // Another key is looked for all the same.
    let new = SigningKey::new("new", Algorithm::ES256);
    issuer.answer(JWKS, Reply::json(&set(&[&key, &new])));
    app.clock.advance(Duration::from_secs(6));
    ask(&app, &new.sign(&Token::of("user_1")))
        .await
        .assert_token();
}

#[actix_web::test]
async fn a_new_key_under_a_known_id_works_at_its_first_use() {
    let issuer = Service::start();
    let (old, new) = (
        SigningKey::new("same", Algorithm::ES256),
        SigningKey::new("same", Algorithm::ES256),
    );
    issuer.answer(JWKS, Reply::json(&set(&[&old])));
    let app = by_url(&issuer).start().await;
    let by_old = old.sign(&Token::of("user_1"));
    ask(&app, &by_old).await.assert_token();
    issuer.answer(JWKS, Reply::json(&set(&[&new])));
    ask(&app, &new.sign(&Token::of("user_2")))
        .await
        .assert_token();
    ask(&app, &by_old)
        .await
        .assert_error(401, "invalid_credentials");
    // Forged tokens of the known key lead to one fetch in five seconds, too.
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
async fn a_set_without_keys_withdraws_all() {
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
async fn nobody_else_waits_for_the_fetch_that_an_unknown_key_causes() {
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
async fn clients_that_leave_while_they_wait_for_keys_let_others_wait() {
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
    eventually("more who left than may wait", async || {
        for _ in 0..200 {
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
        let lines = gate.lines().into_iter();
        lines
            .filter(|line| line["message"] == "client disconnected")
            .count()
            > 1000
    })
    .await;
    assert!(began.elapsed() < slow, "{:?}", began.elapsed());
    drop(clients);
    assert_eq!(gate.ask(&new.sign(&Token::of("user_2"))).await, Some(200));
}

#[actix_web::test]
async fn requests_that_wait_for_keys_take_no_place_from_others() {
    let issuer = Service::start();
    let key = SigningKey::new("known", Algorithm::ES256);
    issuer.answer(JWKS, Reply::json(&set(&[&key])));
    let recipe = Recipe {
        server: "max_in_flight = 2".to_owned(),
        ..by_url(&issuer)
    };
    let app = recipe.start().await;
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
    // While keys serve, one that they lack is unknown.
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
async fn a_gate_that_starts_without_its_issuer_is_not_ready_and_recovers_by_itself() {
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

#[actix_web::test]
async fn the_issuer_says_how_long_its_keys_are_fresh_within_bounds() {
    // What `Cache-Control` says; a time after which nothing is fetched yet; and one after which it is.
    for (cache_control, too_early, in_time) in [
        (None, 11, 16),
        (Some("public, max-age=3600"), 47, 61),
        (Some("max-age=1000000000"), 19 * 60, 24 * 60 + 1),
        (Some("MAX-AGE=0"), 0, 2),
        (Some("no-store"), 0, 2),
        (Some("max-age=nonsense"), 0, 2),
    ] {
        let issuer = Service::start();
        let key = SigningKey::new("one", Algorithm::ES256);
        let mut reply = Reply::json(&set(&[&key]));
        if let Some(value) = cache_control {
            reply = reply.header("cache-control", value);
        }
        issuer.answer(JWKS, reply);
        let app = by_url(&issuer).start().await;
        ask(&app, &key.sign(&Token::of("user_1")))
            .await
            .assert_token();
        app.clock.advance(Duration::from_secs(60 * too_early));
        // The task looks at the clock twice a second: a full second without a fetch is enough to tell.
        let looked = Instant::now();
        eventually("a second", async || {
            looked.elapsed() > Duration::from_secs(1)
        })
        .await;
        assert_eq!(issuer.seen(JWKS).len(), 1, "{cache_control:?}");
        app.clock
            .advance(Duration::from_secs(60 * (in_time - too_early)));
        eventually("a fetch", async || issuer.seen(JWKS).len() == 2).await;
    }
}

/// What an issuer may answer that is no key set.
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
async fn nonsense_from_the_issuer_is_a_fault_at_start_and_changes_nothing_later() {
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
async fn an_issuer_that_hangs_costs_a_request_some_seconds_once() {
    let issuer = Service::start();
    let key = SigningKey::new("one", Algorithm::ES256);
    let hanging = Reply::json(&set(&[&key])).after(Duration::from_secs(60));
    issuer.answer(JWKS, hanging);
    let app = by_url(&issuer).start().await;
    let token = key.sign(&Token::of("user_1"));
    let started = Instant::now();
    ask(&app, &token).await.assert_error(500, "internal");
    assert!(started.elapsed() < Duration::from_secs(12));
    // The fetch at start and one that this token demanded have failed: now the answer comes at once.
    ask(&app, &token).await.assert_error(500, "internal");
    let started = Instant::now();
    ask(&app, &token).await.assert_error(500, "internal");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[actix_web::test]
async fn keys_that_cannot_be_used_are_skipped_and_the_others_serve() {
    let issuer = Service::start();
    let good = SigningKey::new("good", Algorithm::ES256);
    let make = |kid: &str| SigningKey::new(kid, Algorithm::ES256);
    let (encrypting, wrong_algorithm, for_signing, nameless, absent, second) = (
        make("encrypting"),
        make("wrong-algorithm"),
        make("signing"),
        make("nameless"),
        make("absent"),
        make("good"),
    );
    let mut without_alg = absent.jwk();
    without_alg.as_object_mut().unwrap().remove("alg");
    let with = |key: &SigningKey, name: &str, value: Value| {
        let mut jwk = key.jwk();
        jwk[name] = value;
        jwk
    };
    let mut short = SigningKey::new("short", Algorithm::RS256).jwk();
    short["n"] = json!(
        "wJENcRev-eXZKvhhWLiV3Lz2MvO-naQRHo59g3vaNQnbgyduN_L4krlrJ5c6FiikXdtJNb_QrsAHSyJWCu8j3T9CruiwbidGAk2W0RuViTVspjHUTsIHExx9euWM0UomGvYkoqXahdhPL_zViVSJt-Rt8bHLsMvpb8RquTIb9iM"
    );
    let keys = json!({ "keys": [
        "nonsense",
        { "kty": "oct", "kid": "shared", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0" },
        { "kty": "EC", "crv": "P-256", "kid": "broken", "alg": "ES256", "x": "!", "y": "!" },
        { "kty": "new", "kid": "new" },
        short,
        with(&encrypting, "use", json!("enc")),
        with(&wrong_algorithm, "alg", json!("ES384")),
        with(&for_signing, "key_ops", json!(["sign"])),
        with(&nameless, "alg", json!(null)),
        without_alg,
        good.jwk(),
        second.jwk(),
    ]});
    issuer.answer(JWKS, Reply::json(&keys));
    let app = by_url(&issuer).start().await;
    ask(&app, &good.sign(&Token::of("user_1")))
        .await
        .assert_token();
    for key in [
        &encrypting,
        &wrong_algorithm,
        &for_signing,
        &nameless,
        &absent,
        &second,
    ] {
        ask(&app, &key.sign(&Token::of("user_1")))
            .await
            .assert_error(401, "invalid_credentials");
    }
    assert_eq!(
        app.metric(r#"imgwire_gate_identity_keys{identity="idp"}"#)
            .await,
        1.0
    );
}

#[actix_web::test]
async fn a_token_without_kid_needs_a_set_with_one_key_for_its_algorithm() {
    let issuer = Service::start();
    let (one, other) = (
        SigningKey::new("one", Algorithm::ES256),
        SigningKey::new("other", Algorithm::ES256),
    );
    issuer.answer(JWKS, Reply::json(&set(&[&one])));
    let app = by_url(&issuer).start().await;
    let token = one.sign_without_kid(&Token::of("user_1"));
    ask(&app, &token).await.assert_token();
    issuer.answer(JWKS, Reply::json(&set(&[&one, &other])));
    let app = by_url(&issuer).start().await;
    ask(&app, &token)
        .await
        .assert_error(401, "invalid_credentials");
}

#[actix_web::test]
async fn claims_of_providers_that_set_no_audience_can_be_required() {
    let issuer = Service::start();
    let key = SigningKey::new("one", Algorithm::RS256);
    issuer.answer(JWKS, Reply::json(&set(&[&key])));
    let identities = format!(
        r#"
        [identities.cognito]
        kind = "jwt"
        algorithms = ["RS256"]
        jwks_url = "{}{JWKS}"
        required_claims = {{ token_use = "access", client_id = ["app_1", "app_2"] }}
        "#,
        issuer.url
    );
    let app = Recipe::accepting(r#"["cognito"]"#, &identities)
        .start()
        .await;
    let token = Token::of("user_1")
        .without("aud")
        .with("token_use", json!("access"));
    for (client, status) in [
        (json!("app_1"), 200),
        (json!("app_2"), 200),
        (json!(["other", "app_2"]), 200),
        (json!("app_3"), 401),
        (json!(null), 401),
        (json!({ "app_1": true }), 401),
    ] {
        let token = key.sign(&token.clone().with("client_id", client.clone()));
        assert_eq!(ask(&app, &token).await.status, status, "{client}");
    }
    let id_token = token
        .with("client_id", json!("app_1"))
        .with("token_use", json!("id"));
    ask(&app, &key.sign(&id_token))
        .await
        .assert_error(401, "invalid_credentials");
}

#[actix_web::test]
async fn no_token_that_the_keys_did_not_sign_is_believed_whatever_its_header_says() {
    let issuer = Service::start();
    let keys = [
        SigningKey::new("rsa", Algorithm::RS256),
        SigningKey::new("ec", Algorithm::ES256),
        SigningKey::new("ed", Algorithm::EdDSA),
    ];
    let published = set(&keys.iter().collect::<Vec<_>>());
    issuer.answer(JWKS, Reply::json(&published));
    let app = by_url(&issuer).start().await;
    let strangers = [
        SigningKey::new("rsa", Algorithm::RS256),
        SigningKey::new("ec", Algorithm::ES256),
        SigningKey::new("ed", Algorithm::EdDSA),
    ];
    let text = |options: &[&str]| {
        let options: Vec<_> = options.iter().map(|option| json!(option)).collect();
        prop::option::of(prop::sample::select(options))
    };
    let header = (
        prop::sample::select(vec![
            "RS256", "PS256", "ES256", "EdDSA", "HS256", "none", "rs256", "",
        ]),
        text(&["rsa", "ec", "ed", "unknown", ""]),
        text(&["JWT", "at+jwt"]),
        text(&["http://127.0.0.1:1/jwks"]),
        prop::option::of(prop::sample::select(
            strangers.iter().map(SigningKey::jwk).collect::<Vec<_>>(),
        )),
        0..strangers.len(),
        prop::collection::vec(any::<u8>(), 0..80),
        0..4,
    );
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..300 {
        let (alg, kid, typ, jku, jwk, signer, noise, kind) =
            header.new_tree(&mut runner).unwrap().current();
        let mut fields = json!({ "alg": alg });
        for (name, value) in [
            ("kid", kid),
            ("typ", typ),
            ("jku", jku.clone()),
            ("x5u", jku),
            ("jwk", jwk),
        ] {
            if let Some(value) = value {
                fields[name] = value;
            }
        }
        // Signed by a stranger; by nobody; by noise; by a real key over other bytes.
        let signed = strangers[signer].sign(&Token::of("user_1"));
        let real = keys[signer].sign(&Token::of("user_2"));
        let part = |token: &str, index: usize| token.split('.').nth(index).unwrap().to_owned();
        let signature = match kind {
            0 => part(&signed, 2),
            1 => String::new(),
            2 => crate::tokens::base64(&noise),
            _ => part(&real, 2),
        };
        let header = crate::tokens::base64(fields.to_string().as_bytes());
        let token = format!("{header}.{}.{signature}", part(&signed, 1));
        let answer = ask(&app, &token).await;
        answer.assert_error(401, "invalid_credentials");
    }
}
