//! Which identity judges a credential: the first one of `accept` that it addresses by place, `alg` and `iss`.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use crate::{
    helpers::{
        Answer, Gate, ROUTE, TestApp, Token, env, eventually, introspection, jwt, published_jwt,
        remote_session,
    },
    process::{GateProcess, write_config},
    service::{Reply, Service},
    signing::{SigningKey, set},
};

const A: &str = "https://a.example.com";
const B: &str = "https://b.example.com";
const OTHER_SECRET: &str =
    "another shared secret, which is long enough for HS512 as well: 64 bytes";

/// A gate with two issuers, `a` and `b`: each has its own secret, and both sign bearer tokens.
fn accepting<const N: usize>(accept: [&str; N]) -> Gate {
    Gate::accepting(accept.to_vec())
        .identity("a", jwt().issuer(A))
        .identity("b", jwt().issuer(B))
        .set("identities.b.secret", env("TEST_OTHER_SECRET"))
        .secret("TEST_OTHER_SECRET", OTHER_SECRET)
}

fn of(issuer: &str) -> Token {
    Token::of("user_1").with("iss", json!(issuer))
}

fn signed_with(token: &Token, secret: &str) -> String {
    token.sign_with(&EncodingKey::from_secret(secret.as_bytes()))
}

async fn ask(app: &TestApp, token: &str) -> Answer {
    app.ask().bearer(token).send().await
}

#[actix_web::test]
async fn two_issuers_on_one_header_each_judge_their_own_tokens() {
    for accept in [["a", "b"], ["b", "a"]] {
        let app = accepting(accept).start().await;
        // The second time, the token is cached.
        for _ in 0..2 {
            ask(&app, &of(A).sign()).await.assert_token();
            ask(&app, &signed_with(&of(B), OTHER_SECRET))
                .await
                .assert_token();
        }
        // Signed by one issuer and naming the other.
        for bad in [signed_with(&of(A), OTHER_SECRET), of(B).sign()] {
            let answer = ask(&app, &bad).await;
            answer.assert_error(401, "invalid_credentials");
        }
    }
}

#[actix_web::test]
async fn a_token_that_addresses_no_identity_is_401_and_the_response_does_not_say_why() {
    let app = accepting(["a", "b"]).start().await;
    let of_hs384 = Token {
        header: Header::new(Algorithm::HS384),
        ..of(A)
    };
    for token in [
        Token::of("user_1").sign(),
        of("https://c.example.com").sign(),
        of("https://a.example.com/").sign(),
        Token::of("user_1").with("iss", json!([A])).sign(),
        Token::of("user_1").with("iss", json!(null)).sign(),
        of_hs384.sign(),
        "opaque".to_owned(),
        "a.b.c".to_owned(),
    ] {
        let answer = ask(&app, &token).await;
        answer.assert_error(401, "invalid_credentials");
        assert_eq!(
            answer.header("www-authenticate"),
            "Bearer error=\"invalid_token\""
        );
        assert!(!answer.text.contains("iss"), "{answer:?}");
    }
}

#[actix_web::test]
async fn an_identity_without_issuer_judges_the_tokens_that_earlier_identities_do_not() {
    let app = accepting(["a", "fallback"])
        .identity("fallback", jwt())
        .set("identities.fallback.secret", env("TEST_OTHER_SECRET"))
        .start()
        .await;
    ask(&app, &of(A).sign()).await.assert_token();
    for token in [Token::of("user_1"), of(B), of("https://c.example.com")] {
        ask(&app, &signed_with(&token, OTHER_SECRET))
            .await
            .assert_token();
        ask(&app, &token.sign())
            .await
            .assert_error(401, "invalid_credentials");
    }
    // The token names `a`, so `a` judges it, and the fallback does not.
    let bad = signed_with(&of(A), OTHER_SECRET);
    ask(&app, &bad)
        .await
        .assert_error(401, "invalid_credentials");
}

#[actix_web::test]
async fn an_app_can_move_from_a_shared_secret_to_published_keys() {
    let issuer = Service::start();
    let key = SigningKey::new("one", Algorithm::ES256);
    issuer.answer("/jwks", Reply::json(&set(&[&key])));
    let jwks_url = format!("{}/jwks", issuer.url);
    let token = Token::of("user_1");
    for accept in [["old", "new"], ["new", "old"]] {
        let app = accepting(accept)
            .identity("old", jwt())
            .identity("new", published_jwt(["ES256", "RS256"], &jwks_url))
            .start()
            .await;
        for _ in 0..2 {
            ask(&app, &token.sign()).await.assert_token();
            ask(&app, &key.sign(&token)).await.assert_token();
        }
        let stranger = SigningKey::new("one", Algorithm::ES256);
        for bad in [stranger.sign(&token), signed_with(&token, OTHER_SECRET)] {
            ask(&app, &bad)
                .await
                .assert_error(401, "invalid_credentials");
        }
    }
}

#[actix_web::test]
async fn a_jwt_is_verified_and_an_opaque_token_beside_it_is_introspected() {
    let issuer = Service::start();
    let active = json!({ "active": true, "sub": "user_1" });
    issuer.answer("/introspect", Reply::json(&active));
    let url = format!("{}/introspect", issuer.url);
    for accept in [["a", "opaque"], ["opaque", "a"]] {
        let app = accepting(accept)
            .identity("opaque", introspection(&url))
            .start()
            .await;
        let asked = || issuer.seen("/introspect").len();
        let before = asked();
        ask(&app, &of(A).sign()).await.assert_token();
        // A bad JWT is not tried with another identity, and not sent to the issuer.
        ask(&app, &signed_with(&of(A), OTHER_SECRET))
            .await
            .assert_error(401, "invalid_credentials");
        assert_eq!(asked(), before, "{accept:?}");
        // The issuer may know JWTs of its own.
        for token in ["opaque".to_owned(), of(B).sign()] {
            ask(&app, &token).await.assert_token();
        }
        assert_eq!(asked(), before + 2, "{accept:?}");
        let inactive = json!({ "active": false });
        issuer.answer("/introspect", Reply::json(&inactive));
        ask(&app, "opaque")
            .await
            .assert_error(401, "invalid_credentials");
        issuer.answer("/introspect", Reply::json(&active));
    }
}

#[actix_web::test]
async fn the_log_names_the_identity_that_judged_and_why_it_refused() {
    let service = Service::start();
    service.answer("/session", Reply::status(401));
    let answer = json!({ "active": true, "sub": "user_1", "iss": B });
    service.answer("/introspect", Reply::json(&answer));
    let opaque = introspection(&format!("{}/introspect", service.url));
    let site = remote_session(
        &format!("{}/session", service.url),
        ["header:x-site"],
        "/id",
    );
    let builder = accepting(["a", "b", "opaque", "site"])
        .identity("b", jwt().issuer(B).audience(["imgwire-gate"]))
        .identity("opaque", opaque.issuer(A).from(["header:x-opaque"]))
        .identity("site", site);
    let (_folder, config) = write_config(&builder, "http://127.0.0.1:1");
    let gate = GateProcess::start_with(&config, &[], "info", &[]).await;
    let client = awc::Client::default();
    let expired = jiff::Timestamp::now().as_second() - 3600;
    let cases = [
        (
            "authorization",
            format!("Bearer {}", of("https://c.example.com").sign()),
            None,
            "no accepted identity is addressed: identity `a`: the token's `iss` is `https://c.example.com`, expected `https://a.example.com`; \
             identity `b`: the token's `iss` is `https://c.example.com`, expected `https://b.example.com`",
        ),
        (
            "authorization",
            format!("Bearer {}", of(B).with("aud", json!("other")).sign()),
            Some("b"),
            "identity `b`: the token's `aud` is `other`, expected `imgwire-gate`",
        ),
        (
            "authorization",
            format!("Bearer {}", of(B).with("exp", json!(expired)).sign()),
            Some("b"),
            "identity `b`: the credential expired 60 minutes ago",
        ),
        (
            "authorization",
            format!("Bearer {}", signed_with(&of(A), OTHER_SECRET)),
            Some("a"),
            "identity `a`: the token's signature does not match any key of the identity",
        ),
        (
            "x-opaque",
            "opaque".to_owned(),
            Some("opaque"),
            "identity `opaque`: the token's `iss` is `https://b.example.com`, expected `https://a.example.com`",
        ),
        (
            "x-site",
            "cookie".to_owned(),
            Some("site"),
            "identity `site`: the app answered 401",
        ),
    ];
    for (index, (name, value, identity, reason)) in cases.into_iter().enumerate() {
        let request = client.post(format!("{}{}", gate.url(), ROUTE));
        let mut response = request.insert_header((name, value)).send().await.unwrap();
        assert_eq!(response.status(), 401);
        let body = String::from_utf8(response.body().await.unwrap().to_vec()).unwrap();
        assert!(!body.contains("identity"), "{body}");
        eventually("the line", async || gate.decisions().len() == index + 1).await;
        let line = gate.decisions().pop().unwrap();
        assert_eq!(line["reason"], reason);
        assert_eq!(line["identity"].as_str(), identity, "{line}");
    }
}
