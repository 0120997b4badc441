//! Which identity judges a credential: the first one of `accept` that it addresses by place, `alg` and `iss`.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use crate::{
    helpers::{Answer, ROUTE, Recipe, TestApp, Token, eventually},
    process::{GateProcess, write_config},
    service::{Reply, Service},
    signing::{SigningKey, set},
};

const A: &str = "https://a.example.com";
const B: &str = "https://b.example.com";
const OTHER_SECRET: &str =
    "another shared secret, which is long enough for HS512 as well: 64 bytes";

/// `a` and `b`: two issuers, each with a secret of its own, both in the bearer header.
const TWO_ISSUERS: &str = r#"
    [identities.a]
    kind = "jwt"
    algorithms = ["HS256"]
    secret = { env = "TEST_SECRET" }
    issuer = "https://a.example.com"
    [identities.b]
    kind = "jwt"
    algorithms = ["HS256"]
    secret = { env = "TEST_OTHER_SECRET" }
    issuer = "https://b.example.com"
"#;

fn accepting(accept: &str, identities: &str) -> Recipe {
    Recipe::accepting(accept, identities).with_secret("TEST_OTHER_SECRET", OTHER_SECRET)
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
    for accept in [r#"["a", "b"]"#, r#"["b", "a"]"#] {
        let app = accepting(accept, TWO_ISSUERS).start().await;
        // Twice: the second time the token is remembered.
        for _ in 0..2 {
            ask(&app, &of(A).sign()).await.assert_token();
            ask(&app, &signed_with(&of(B), OTHER_SECRET))
                .await
                .assert_token();
        }
        // Signed by the one and named by the other.
        for bad in [signed_with(&of(A), OTHER_SECRET), of(B).sign()] {
            let answer = ask(&app, &bad).await;
            answer.assert_error(401, "invalid_credentials");
        }
    }
}

#[actix_web::test]
async fn a_token_that_addresses_no_identity_is_401_and_the_response_does_not_say_why() {
    let app = accepting(r#"["a", "b"]"#, TWO_ISSUERS).start().await;
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
async fn an_identity_without_issuer_takes_what_the_ones_before_it_do_not_take() {
    let fallback = r#"
        [identities.fallback]
        kind = "jwt"
        algorithms = ["HS256"]
        secret = { env = "TEST_OTHER_SECRET" }
    "#;
    let identities = format!("{TWO_ISSUERS}{fallback}");
    let app = accepting(r#"["a", "fallback"]"#, &identities).start().await;
    ask(&app, &of(A).sign()).await.assert_token();
    for token in [Token::of("user_1"), of(B), of("https://c.example.com")] {
        ask(&app, &signed_with(&token, OTHER_SECRET))
            .await
            .assert_token();
        ask(&app, &token.sign())
            .await
            .assert_error(401, "invalid_credentials");
    }
    // It names `a`, so `a` judges, and the fallback never does.
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
    let identities = format!(
        r#"
        [identities.old]
        kind = "jwt"
        algorithms = ["HS256"]
        secret = {{ env = "TEST_SECRET" }}
        [identities.new]
        kind = "jwt"
        algorithms = ["ES256", "RS256"]
        jwks_url = "{}/jwks"
        "#,
        issuer.url
    );
    let token = Token::of("user_1");
    for accept in [r#"["old", "new"]"#, r#"["new", "old"]"#] {
        let app = accepting(accept, &identities).start().await;
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
    let opaque = format!(
        r#"
        [identities.opaque]
        kind = "introspection"
        url = "{}/introspect"
        client_id = "gate"
        client_secret = {{ env = "TEST_SECRET" }}
        "#,
        issuer.url
    );
    let identities = format!("{TWO_ISSUERS}{opaque}");
    for accept in [r#"["a", "opaque"]"#, r#"["opaque", "a"]"#] {
        let app = accepting(accept, &identities).start().await;
        let asked = || issuer.seen("/introspect").len();
        let before = asked();
        ask(&app, &of(A).sign()).await.assert_token();
        // A bad JWT is not tried elsewhere, and does not travel.
        ask(&app, &signed_with(&of(A), OTHER_SECRET))
            .await
            .assert_error(401, "invalid_credentials");
        assert_eq!(asked(), before, "{accept}");
        // The issuer may know JWTs of its own.
        for token in ["opaque".to_owned(), of(B).sign()] {
            ask(&app, &token).await.assert_token();
        }
        assert_eq!(asked(), before + 2, "{accept}");
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
    let more = format!(
        r#"
        [identities.opaque]
        kind = "introspection"
        url = "{0}/introspect"
        client_id = "gate"
        client_secret = {{ env = "TEST_SECRET" }}
        issuer = "{A}"
        from = ["header:x-opaque"]
        [identities.site]
        kind = "remote"
        url = "{0}/session"
        forward = ["header:x-site"]
        subject = "/id"
        "#,
        service.url
    );
    let identities = format!("{TWO_ISSUERS}audience = [\"imgwire-gate\"]{more}")
        .replace("TEST_OTHER_SECRET", "TEST_SECRET");
    let accept = r#"["a", "b", "opaque", "site"]"#;
    let recipe = accepting(accept, &identities);
    let (_folder, config) = write_config(&recipe, "http://127.0.0.1:1");
    let gate = GateProcess::start_with(&config, &[], "info", &[]).await;
    let client = awc::Client::default();
    let expired = jiff::Timestamp::now().as_second() - 3600;
    let cases = [
        (
            "authorization",
            format!("Bearer {}", of("https://c.example.com").sign()),
            None,
            "identity `a`: the token's `iss` is `https://c.example.com`, expected `https://a.example.com`; \
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
            "identity `b`: the credential has expired",
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
            "identity `site`: it knows no user with this credential",
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
