//! JSON Web Tokens: which are accepted and which are refused.

use aws_lc_rs::hmac;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::{prelude::*, strategy::ValueTree as _};
use serde_json::{Value, json};

use crate::helpers::{Gate, SECRET, TestApp, Token, env};

/// Key pairs that were made for the tests.
const EC_PRIVATE: &str = include_str!("../keys/ec_private.pem");
const EC_PUBLIC: &str = include_str!("../keys/ec_public.pem");
const RSA_PRIVATE: &str = include_str!("../keys/rsa_private.pem");
const RSA_PUBLIC: &str = include_str!("../keys/rsa_public.pem");
const ED_PRIVATE: &str = include_str!("../keys/ed_private.pem");
const ED_PUBLIC: &str = include_str!("../keys/ed_public.pem");

fn with_key(algorithm: &str, public_key: &str) -> Gate {
    let identity = json!({
        "kind": "jwt",
        "algorithms": [algorithm],
        "public_key": env("TEST_PUBLIC_KEY"),
        "audience": ["imgwire-gate"],
    });
    Gate::standard()
        .identity("app", identity)
        .secret("TEST_PUBLIC_KEY", public_key)
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for index in 0..=chunk.len() {
            text.push(ALPHABET[(bits >> (18 - 6 * index)) as usize & 63].into());
        }
    }
    text
}

/// A token with exactly this header and these claims, signed by HS256 with `secret`.
fn raw(header: &Value, claims: &str, secret: &[u8]) -> String {
    let message = format!(
        "{}.{}",
        base64(header.to_string().as_bytes()),
        base64(claims.as_bytes())
    );
    let signature = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, secret),
        message.as_bytes(),
    );
    format!("{message}.{}", base64(signature.as_ref()))
}

fn claims() -> String {
    Value::Object(Token::of("user_1").claims).to_string()
}

#[actix_web::test]
async fn keys_of_every_family_are_accepted() {
    let rsa = EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).unwrap();
    let ec = EncodingKey::from_ec_pem(EC_PRIVATE.as_bytes()).unwrap();
    let ed = EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).unwrap();
    for (algorithm, name, private, public) in [
        (Algorithm::RS256, "RS256", &rsa, RSA_PUBLIC),
        (Algorithm::RS384, "RS384", &rsa, RSA_PUBLIC),
        (Algorithm::RS512, "RS512", &rsa, RSA_PUBLIC),
        (Algorithm::PS256, "PS256", &rsa, RSA_PUBLIC),
        (Algorithm::ES256, "ES256", &ec, EC_PUBLIC),
        (Algorithm::EdDSA, "EdDSA", &ed, ED_PUBLIC),
    ] {
        let app = with_key(name, public).start().await;
        let mut token = Token::of("user_1");
        token.header = Header::new(algorithm);
        app.ask()
            .bearer(&token.sign_with(private))
            .send()
            .await
            .assert_token();
        let own = Token::of("user_1").sign_with(&EncodingKey::from_secret(public.as_bytes()));
        app.ask()
            .bearer(&own)
            .send()
            .await
            .assert_error(401, "invalid_credentials");
    }
    for (algorithm, name) in [(Algorithm::HS384, "HS384"), (Algorithm::HS512, "HS512")] {
        let gate = Gate::standard().set("identities.app.algorithms", [name]);
        let app = gate.start().await;
        let mut token = Token::of("user_1");
        token.header = Header::new(algorithm);
        app.ask_as(&token).await.assert_token();
        app.ask_as(&Token::of("user_1"))
            .await
            .assert_error(401, "invalid_credentials");
    }
}

#[actix_web::test]
async fn a_token_cannot_choose_its_own_key_or_algorithm() {
    let app = TestApp::start().await;
    let secret = SECRET.as_bytes();
    let unsigned = format!(
        "{}.{}.",
        base64(br#"{"alg":"none"}"#),
        base64(claims().as_bytes())
    );
    let mut bad = vec![unsigned.clone(), format!("{unsigned}x")];
    for alg in [
        "none", "None", "NONE", "nOnE", "HS384", "RS256", "", "hs256",
    ] {
        bad.push(raw(&json!({ "alg": alg }), &claims(), secret));
    }
    let own_key = json!({ "kty": "oct", "k": base64(b"the attacker's") });
    for header in [
        json!({ "alg": "HS256", "jwk": own_key }),
        json!({ "alg": "HS256", "jku": "https://attacker.example/jwks" }),
        json!({ "alg": "HS256", "x5u": "https://attacker.example/cert" }),
    ] {
        bad.push(raw(&header, &claims(), b"the attacker's"));
    }
    for crit in [json!(["exp"]), json!(["b64"]), json!([]), json!(null)] {
        bad.push(raw(
            &json!({ "alg": "HS256", "crit": crit }),
            &claims(),
            secret,
        ));
    }
    for token in bad {
        app.ask()
            .bearer(&token)
            .send()
            .await
            .assert_error(401, "invalid_credentials");
    }
    app.ask()
        .bearer(&raw(&json!({ "alg": "HS256" }), &claims(), secret))
        .send()
        .await
        .assert_token();
}

#[actix_web::test]
async fn the_reason_names_an_unknown_alg_and_the_expected_one() {
    let app = TestApp::start().await;
    let long = "x".repeat(9000);
    for alg in ["ES512", "ES256K", "none", &long] {
        let token = raw(&json!({ "alg": alg }), &claims(), b"any");
        app.ask()
            .bearer(&token)
            .send()
            .await
            .assert_error(401, "invalid_credentials");
        let explain = app.request_management(actix_web::http::Method::POST, "/explain");
        let explained = explain.json(&json!({ "token": token })).await;
        let alg = &alg[..alg.len().min(100)];
        let expected = format!("the token's `alg` is `{alg}`, expected `HS256`");
        assert!(explained.text.contains(&expected), "{explained:?}");
    }
}

#[actix_web::test]
async fn an_incomplete_token_is_refused() {
    let app = TestApp::start().await;
    let good = Token::of("user_1").sign();
    let (message, signature) = good.rsplit_once('.').unwrap();
    let huge = Token::of("user_1")
        .with("padding", json!("x".repeat(13_000)))
        .sign();
    for bad in [
        format!("{good}x"),
        format!("{good}.x"),
        format!("{good}="),
        format!("{good} x"),
        good[1..].to_owned(),
        message.to_owned(),
        format!("{message}."),
        format!(".{signature}"),
        "..".to_owned(),
        huge,
    ] {
        app.ask()
            .bearer(&bad)
            .send()
            .await
            .assert_error(401, "invalid_credentials");
    }
    app.ask().bearer(&good).send().await.assert_token();
}

#[actix_web::test]
async fn claims_must_match_the_config() {
    let issuer = "https://app.example.com";
    let app = Gate::standard()
        .set("identities.app.issuer", issuer)
        .start()
        .await;
    let good = || Token::of("user_1").with("iss", json!("https://app.example.com"));
    app.ask_as(&good()).await.assert_token();
    app.ask_as(&good().with("aud", json!(["other", "imgwire-gate"])))
        .await
        .assert_token();
    let now = jiff::Timestamp::now().as_second();
    for bad in [
        good().without("aud"),
        good().with("aud", json!("other")),
        good().with("aud", json!([])),
        good().with("aud", json!(7)),
        good().with("aud", json!({ "imgwire-gate": true })),
        good().without("iss"),
        good().with("iss", json!("https://other.example.com")),
        good().with("iss", json!(null)),
        good().with("iss", json!(true)),
        good().without("exp"),
        good().with("exp", json!("tomorrow")),
        good().with("exp", json!(null)),
        good().with("exp", json!([now + 60])),
        good().with("nbf", json!(now + 3600)),
        good().with("nbf", json!("yesterday")),
        good().without("sub"),
        good().with("sub", json!(7.0)),
        good().with("sub", json!("")),
        good().with("sub", json!(null)),
        good().with("sub", json!(["user_1"])),
        good().with("sub", json!("user\n1")),
    ] {
        app.ask_as(&bad)
            .await
            .assert_error(401, "invalid_credentials");
    }
    app.ask_as(&good().with("exp", json!(now - 3600)))
        .await
        .assert_error(401, "credentials_expired");
}

#[actix_web::test]
async fn a_cached_token_still_expires() {
    let app = TestApp::start().await;
    let token = Token::of("user_1").sign();
    app.ask().bearer(&token).send().await.assert_token();
    app.ask().bearer(&token).send().await.assert_token();
    app.clock.advance(std::time::Duration::from_secs(3600 + 31));
    app.ask()
        .bearer(&token)
        .send()
        .await
        .assert_error(401, "credentials_expired");
}

#[actix_web::test]
async fn expiry_and_not_before_are_checked_with_the_leeway() {
    let app = TestApp::start().await;
    let now = jiff::Timestamp::now().as_second();
    app.ask_as(&Token::of("user_1").with("exp", json!(now - 20)))
        .await
        .assert_token();
    app.ask_as(&Token::of("user_1").with("nbf", json!(now + 20)))
        .await
        .assert_token();
    // `null` is no time.
    app.ask_as(&Token::of("user_1").with("nbf", json!(null)))
        .await
        .assert_token();
    app.ask_as(&Token::of("user_1").with("exp", json!(null)))
        .await
        .assert_error(401, "invalid_credentials");
    let late = Token::of("user_1").with("exp", json!(now - 40));
    app.ask_as(&late)
        .await
        .assert_error(401, "credentials_expired");
}

#[actix_web::test]
async fn a_token_is_read_only_from_the_configured_places() {
    let app = TestApp::start().await;
    let token = Token::of("user_1").sign();
    app.ask()
        .header("x-app-token", &token)
        .send()
        .await
        .assert_token();
    let cookie = format!("other=1; __session={token}");
    app.ask()
        .header("cookie", &cookie)
        .send()
        .await
        .assert_token();
    app.ask()
        .header("authorization", &format!("bEaReR {token}"))
        .send()
        .await
        .assert_token();
    for (name, value) in [
        ("authorization", format!("Basic {token}")),
        ("authorization", token.clone()),
        ("x-token", token.clone()),
        ("cookie", format!("session={token}")),
        ("x-user", "user_1".to_owned()),
        ("x-forwarded-user", "user_1".to_owned()),
    ] {
        app.ask()
            .header(name, &value)
            .send()
            .await
            .assert_error(401, "not_signed_in");
    }
}

#[actix_web::test]
async fn a_bad_credential_never_falls_through_to_a_good_one() {
    let app = TestApp::start().await;
    let token = Token::of("user_1");
    let good = token.sign();
    let expired = jiff::Timestamp::now().as_second() - 3600;
    for (bad, code) in [
        (
            token.sign_with(&EncodingKey::from_secret(&[7; 32])),
            "invalid_credentials",
        ),
        (
            token.clone().with("aud", json!("other")).sign(),
            "invalid_credentials",
        ),
        (
            token.clone().with("exp", json!(expired)).sign(),
            "credentials_expired",
        ),
    ] {
        let request = app
            .ask()
            .bearer(&bad)
            .header("cookie", &format!("__session={good}"));
        request.send().await.assert_error(401, code);
        let request = app
            .ask()
            .header("cookie", &format!("__session={bad}"))
            .header("x-app-token", &good);
        request.send().await.assert_error(401, code);
    }
}

#[actix_web::test]
async fn a_repeated_credential_is_refused() {
    let app = TestApp::start().await;
    let (one, other) = (Token::of("user_1").sign(), Token::of("user_2").sign());
    app.ask()
        .bearer(&one)
        .bearer(&other)
        .send()
        .await
        .assert_error(401, "invalid_credentials");
    let doubled = format!("__session={one}; __session={other}");
    let request = app.ask().header("cookie", &doubled);
    request
        .send()
        .await
        .assert_error(401, "invalid_credentials");
    let request = app
        .ask()
        .header("x-app-token", &one)
        .header("x-app-token", &other);
    request
        .send()
        .await
        .assert_error(401, "invalid_credentials");
}

#[test]
fn no_modified_token_is_accepted() {
    actix_web::rt::System::new().block_on(async {
        let app = TestApp::start().await;
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let good = Token::of("user_1").sign();
        let strategy = (0..good.len(), any::<u8>(), any::<bool>());
        for _ in 0..300 {
            let (at, byte, insert) = strategy.new_tree(&mut runner).unwrap().current();
            let mut bytes = good.clone().into_bytes();
            let byte = b'!' + byte % 90;
            if insert {
                bytes.insert(at, byte)
            } else {
                bytes[at] = byte
            }
            let changed = String::from_utf8(bytes).unwrap();
            if changed != good {
                app.ask()
                    .bearer(&changed)
                    .send()
                    .await
                    .assert_error(401, "invalid_credentials");
            }
        }
    });
}
