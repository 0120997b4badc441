//! Several identities: the first one that a credential addresses judges it, and a bad credential never falls through.

use actix_web::http::Method;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;

use crate::{
    helpers::{
        Gate, SESSION, TestApp, Token, forwarded, introspection, jwt, published_jwt, remote_session,
    },
    service::{Reply, Service},
    signing::{SigningKey, set},
};

/// What a request carries for one identity: a header, good or bad.
struct Credential {
    identity: &'static str,
    header: &'static str,
    good: String,
    bad: String,
    bad_code: &'static str,
}

const IDENTITIES: [&str; 6] = ["static", "published", "opaque", "site", "edge", "browser"];

async fn gate(service: &Service, accept: &[&str]) -> TestApp {
    let at = |path: &str| format!("{}{path}", service.url);
    Gate::accepting(accept)
        .server("trusted_proxies", ["127.0.0.1"])
        .exchange(["static", "published", "opaque", "site", "edge"])
        .identity(
            "static",
            jwt().audience(["imgwire-gate"]).from(["header:x-static"]),
        )
        .identity(
            "published",
            published_jwt(["ES256"], &at("/jwks")).from(["header:x-published"]),
        )
        .identity(
            "opaque",
            introspection(&at("/introspect")).from(["header:x-opaque"]),
        )
        .identity(
            "site",
            remote_session(&at("/session"), ["header:x-site"], "/id"),
        )
        .identity("edge", forwarded("X-User"))
        .start()
        .await
}

async fn credentials(service: &Service, key: &SigningKey) -> Vec<Credential> {
    let token = Token::of("user_1");
    let signing_in = gate(service, &["static"]).await;
    let session = signing_in
        .request(Method::POST, SESSION)
        .header("x-static", &token.sign());
    let cookie = session.send().await.cookie().to_owned();
    let credential = |identity, header, good: &str, bad: &str, bad_code| Credential {
        identity,
        header,
        good: good.to_owned(),
        bad: bad.to_owned(),
        bad_code,
    };
    let invalid = "invalid_credentials";
    let other_secret = EncodingKey::from_secret(&[7; 32]);
    let stranger = SigningKey::new("one", Algorithm::ES256);
    vec![
        credential(
            "static",
            "x-static",
            &token.sign(),
            &token.sign_with(&other_secret),
            invalid,
        ),
        credential(
            "published",
            "x-published",
            &key.sign(&token),
            &stranger.sign(&token),
            invalid,
        ),
        credential("opaque", "x-opaque", "good", &"x".repeat(9000), invalid),
        // Two lines.
        credential("site", "x-site", "good", "good\nbad", invalid),
        credential("edge", "x-user", "user_1", "a\tb", invalid),
        credential(
            "browser",
            "cookie",
            &cookie,
            "__Host-imgwire_gate=bad",
            "not_signed_in",
        ),
    ]
}

#[actix_web::test]
async fn the_first_addressed_identity_of_each_pair_judges() {
    let service = Service::start();
    let key = SigningKey::new("one", Algorithm::ES256);
    service.answer("/jwks", Reply::json(&set(&[&key])));
    service.answer(
        "/introspect",
        Reply::json(&json!({ "active": true, "sub": "user_1" })),
    );
    service.answer("/session", Reply::json(&json!({ "id": "user_1" })));
    let credentials = credentials(&service, &key).await;
    assert_eq!(
        credentials.iter().map(|c| c.identity).collect::<Vec<_>>(),
        IDENTITIES
    );
    for first in &credentials {
        for second in &credentials {
            if first.identity == second.identity {
                continue;
            }
            let pair = [first.identity, second.identity];
            let app = gate(&service, &pair).await;
            let ask = async |headers: &[(&str, &str)]| {
                let request = app.ask();
                let lines = headers
                    .iter()
                    .flat_map(|(name, value)| value.split('\n').map(move |line| (name, line)));
                let request =
                    lines.fold(request, |request, (name, line)| request.header(name, line));
                let answer = request.send().await;
                (answer.status.as_u16(), answer.code().to_owned())
            };
            let issued = (200, String::new());
            let refused = |credential: &Credential| (401, credential.bad_code.to_owned());
            let (f, s) = (first, second);
            assert_eq!(ask(&[]).await, (401, "not_signed_in".into()), "{pair:?}");
            assert_eq!(
                ask(&[(s.header, &s.good)]).await,
                issued,
                "{pair:?}: first absent"
            );
            assert_eq!(
                ask(&[(s.header, &s.bad)]).await,
                refused(s),
                "{pair:?}: second bad"
            );
            assert_eq!(
                ask(&[(f.header, &f.bad), (s.header, &s.good)]).await,
                refused(f),
                "{pair:?}: first bad"
            );
            assert_eq!(
                ask(&[(f.header, &f.good), (s.header, &s.good)]).await,
                issued,
                "{pair:?}: both"
            );
            assert_eq!(
                ask(&[(f.header, &f.good), (s.header, &s.bad)]).await,
                issued,
                "{pair:?}: the first decides"
            );
        }
    }
}

#[actix_web::test]
async fn every_identity_that_exchange_names_is_exchanged_for_a_session() {
    let service = Service::start();
    let key = SigningKey::new("one", Algorithm::ES256);
    service.answer("/jwks", Reply::json(&set(&[&key])));
    service.answer(
        "/introspect",
        Reply::json(&json!({ "active": true, "sub": "user_1" })),
    );
    service.answer("/session", Reply::json(&json!({ "id": "user_1" })));
    let app = gate(&service, &["browser"]).await;
    for credential in credentials(&service, &key).await {
        if credential.identity == "browser" {
            continue;
        }
        let exchange = async |value: &str| {
            let request = app.request(Method::POST, SESSION);
            let request = value.split('\n').fold(request, |request, line| {
                request.header(credential.header, line)
            });
            request.send().await
        };
        let answer = exchange(&credential.good).await;
        assert_eq!(answer.status, 204, "{}", credential.identity);
        let request = app.ask().header("cookie", answer.cookie());
        request.send().await.assert_token();
        let shown = app
            .request(Method::GET, SESSION)
            .header("cookie", answer.cookie());
        assert_eq!(shown.send().await.json["subject"], "user_1");
        exchange(&credential.bad)
            .await
            .assert_error(401, credential.bad_code);
    }
}
