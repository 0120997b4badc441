//! Keys that an issuer publishes: how they are found and checked.

use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;
use proptest::{prelude::*, strategy::ValueTree as _};
use serde_json::{Value, json};

use crate::{
    helpers::{Gate, TestApp, Token, discovered_jwt, env, eventually, jwt, published_jwt},
    service::{Reply, Service},
    signing::{SigningKey, set},
};

pub(crate) const JWKS: &str = "/jwks";
const DISCOVERY: &str = "/.well-known/openid-configuration";

pub(crate) fn by_url(issuer: &Service) -> Gate {
    by_url_with(issuer, &["RS256", "ES256", "EdDSA"])
}

/// A gate that has used this key, the only one that its issuer publishes.
pub(crate) async fn gate_that_knows(key: &SigningKey) -> (TestApp, Service) {
    let issuer = Service::start();
    issuer.answer(JWKS, Reply::json(&set(&[key])));
    let app = by_url(&issuer).start().await;
    ask(&app, &key.sign(&Token::of("user_1")))
        .await
        .assert_token();
    (app, issuer)
}

fn by_url_with(issuer: &Service, algorithms: &[&str]) -> Gate {
    let idp = published_jwt(algorithms, &format!("{}{JWKS}", issuer.url));
    Gate::accepting(["idp"]).identity("idp", idp)
}

fn by_discovery(issuer: &Service) -> Gate {
    Gate::accepting(["idp"]).identity("idp", discovered_jwt(["ES256"], &issuer.url))
}

pub(crate) async fn ask(app: &TestApp, token: &str) -> crate::helpers::Answer {
    app.ask().bearer(token).send().await
}

pub(crate) async fn is_ready(app: &TestApp) -> bool {
    app.manage("/readyz").await.status == 200
}

#[actix_web::test]
async fn published_keys_of_every_family_are_accepted() {
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
        let app = by_url_with(&issuer, &[&format!("{algorithm:?}")])
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
async fn a_discovery_document_of_another_issuer_or_with_keys_elsewhere_is_refused() {
    let issuer = Service::start();
    let (url, jwks) = (&issuer.url, format!("{}{JWKS}", issuer.url));
    for metadata in [
        json!({ "issuer": "https://evil.example", "jwks_uri": jwks }),
        json!({ "issuer": format!("{url}/"), "jwks_uri": jwks }),
        json!({ "issuer": url, "jwks_uri": "http://keys.example.com/jwks" }),
        json!({ "issuer": url, "jwks_uri": "file:///etc/passwd" }),
        json!({ "issuer": url }),
        json!("nonsense"),
    ] {
        let key = SigningKey::new("one", Algorithm::ES256);
        issuer.answer(DISCOVERY, Reply::json(&metadata));
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
async fn a_key_set_may_come_from_the_config() {
    let key = SigningKey::new("one", Algorithm::ES256);
    let other = SigningKey::new("one", Algorithm::ES256);
    let app = Gate::accepting(["idp"])
        .identity("idp", jwt().audience(["imgwire-gate"]))
        .set("identities.idp.algorithms", ["ES256"])
        .without("identities.idp.secret")
        .set("identities.idp.jwks", env("TEST_JWKS"))
        .secret("TEST_JWKS", &set(&[&key]).to_string())
        .start()
        .await;
    let token = Token::of("user_1");
    ask(&app, &key.sign(&token)).await.assert_token();
    ask(&app, &other.sign(&token))
        .await
        .assert_error(401, "invalid_credentials");
}

#[actix_web::test]
async fn keys_stay_fresh_as_long_as_cache_control_says_within_bounds() {
    // `Cache-Control`; minutes after which nothing is fetched yet; and minutes after which the keys are fetched.
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
        // The task looks at the clock twice per second: one second without a fetch is enough.
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

#[actix_web::test]
async fn unusable_keys_are_skipped_and_the_others_serve() {
    let issuer = Service::start();
    let good = SigningKey::new("good", Algorithm::ES256);
    let make = |kid: &str| SigningKey::new(kid, Algorithm::ES256);
    let (encrypting, wrong_algorithm, for_signing, odd, second) = (
        make("encrypting"),
        make("wrong-algorithm"),
        make("signing"),
        make("odd"),
        make("good"),
    );
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
        with(&odd, "alg", json!(256)),
        good.jwk(),
        second.jwk(),
    ]});
    issuer.answer(JWKS, Reply::json(&keys));
    let app = by_url(&issuer).start().await;
    ask(&app, &good.sign(&Token::of("user_1")))
        .await
        .assert_token();
    for key in [&encrypting, &wrong_algorithm, &for_signing, &odd, &second] {
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
async fn claims_of_providers_without_an_audience_can_be_required() {
    let issuer = Service::start();
    let key = SigningKey::new("one", Algorithm::RS256);
    issuer.answer(JWKS, Reply::json(&set(&[&key])));
    let required = json!({ "token_use": "access", "client_id": ["app_1", "app_2"] });
    let cognito = published_jwt(["RS256"], &format!("{}{JWKS}", issuer.url));
    let app = Gate::accepting(["cognito"])
        .identity("cognito", cognito)
        .without("identities.cognito.audience")
        .set("identities.cognito.required_claims", required)
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
async fn no_token_with_a_foreign_signature_is_accepted_whatever_its_header() {
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
        // The signature is a stranger's, empty, noise, or a real key's over other bytes.
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
