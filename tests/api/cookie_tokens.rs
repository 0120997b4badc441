//! Tokens inside cookies: in chunks, and in the session of Supabase's client library.

use serde_json::{Value, json};

use crate::{
    helpers::{Answer, Gate, TestApp, Token, introspection, jwt},
    service::{Reply, Service},
    tokens::base64,
};

const COOKIE: &str = "sb-abcdefgh-auth-token";

async fn gate() -> TestApp {
    let supabase = jwt()
        .audience(["imgwire-gate"])
        .from(["bearer", &format!("cookie:{COOKIE}*")]);
    Gate::accepting(["supabase"])
        .identity("supabase", supabase)
        .start()
        .await
}

async fn ask(gate: &TestApp, cookies: &str) -> Answer {
    gate.ask().header("cookie", cookies).send().await
}

fn encoded(session: &Value) -> String {
    format!("base64-{}", base64(session.to_string().as_bytes()))
}

fn session(token: &str) -> Value {
    json!({
        "access_token": token,
        "token_type": "bearer",
        "expires_in": 3600,
        "refresh_token": "v1.MRjT",
        "user": { "id": "user_1", "email": "j\u{fc}rgen@example.com", "identities": [] },
    })
}

/// The cookies that the library writes for a value of two or more chunks.
fn chunks(value: &str, size: usize) -> Vec<String> {
    let parts = value.as_bytes().chunks(size).enumerate();
    parts
        .map(|(index, part)| format!("{COOKIE}.{index}={}", str::from_utf8(part).unwrap()))
        .collect()
}

#[actix_web::test]
async fn a_token_in_a_session_of_supabase_is_accepted() {
    let gate = gate().await;
    let token = Token::of("user_1").sign();
    let list = json!([token, "v1.MRjT", null, null, null]);
    for value in [
        encoded(&session(&token)),
        encoded(&list),
        token.clone(),
        format!("{}==", encoded(&json!({ "access_token": token }))),
    ] {
        let whole = format!("theme=dark; {COOKIE}={value}");
        ask(&gate, &whole).await.assert_token();
        for size in [64, 200] {
            let mut parts = chunks(&value, size);
            ask(&gate, &parts.join("; ")).await.assert_token();
            parts.reverse();
            parts.push(format!("{COOKIE}="));
            ask(&gate, &parts.join("; ")).await.assert_token();
        }
    }
}

#[actix_web::test]
async fn a_session_of_supabase_without_a_valid_token_is_refused() {
    let gate = gate().await;
    let token = Token::of("user_1").sign();
    let other = Token::of("user_1").with("aud", json!("other")).sign();
    let twice = format!("{{\"access_token\":\"{token}\",\"access_token\":\"{token}\"}}");
    for value in [
        encoded(&session(&other)),
        encoded(&session("")),
        encoded(&session("J\u{fc}rgen")),
        encoded(&json!({ "token": token })),
        encoded(&json!({ "access_token": null })),
        encoded(&json!({ "access_token": [token] })),
        encoded(&json!([])),
        encoded(&json!([null, token])),
        encoded(&json!(token)),
        encoded(&json!(null)),
        format!("base64-{}", base64(twice.as_bytes())),
        format!(
            "base64-{}",
            base64(format!("{} x", session(&token)).as_bytes())
        ),
        format!("base64-{}", base64(&[b'['; 4000])),
        format!("base64-{}", base64(b"{\"access_token\":\"\xff\"}")),
        "base64-".to_owned(),
        "base64-%%%".to_owned(),
        format!("base64-{token}"),
    ] {
        let answer = ask(&gate, &format!("{COOKIE}={value}")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (401, "invalid_credentials"),
            "{value}"
        );
    }
}

#[actix_web::test]
async fn incomplete_and_ambiguous_chunks_are_refused() {
    let gate = gate().await;
    let value = encoded(&session(&Token::of("user_1").sign()));
    let parts = chunks(&value, 100);
    assert!(parts.len() > 3);
    let whole = format!("{COOKIE}={value}");
    for cookies in [
        parts[1..].join("; "),
        parts[..parts.len() - 1].join("; "),
        [&parts[..1], &parts[2..]].concat().join("; "),
        [&parts[..], &parts[..1]].concat().join("; "),
        [&parts[..], std::slice::from_ref(&whole)]
            .concat()
            .join("; "),
        format!("{whole}; {whole}"),
    ] {
        let answer = ask(&gate, &cookies).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (401, "invalid_credentials"),
            "{cookies}"
        );
    }
}

#[actix_web::test]
async fn an_expired_session_of_supabase_is_expired_and_another_cookie_does_not_matter() {
    let gate = gate().await;
    let expired = Token::of("user_1").with("exp", json!(1_700_000_000)).sign();
    let cookies = format!("{COOKIE}={}", encoded(&session(&expired)));
    ask(&gate, &cookies)
        .await
        .assert_error(401, "credentials_expired");
    for other in ["-code-verifier", ".x", "s", ".01"] {
        let cookies = format!("{COOKIE}{other}=base64-abc");
        ask(&gate, &cookies)
            .await
            .assert_error(401, "not_signed_in");
    }
}

#[actix_web::test]
async fn a_session_in_a_cookie_is_bounded() {
    let gate = gate().await;
    let token = Token::of("user_1").sign();
    let large = json!({ "access_token": token, "user": "x".repeat(20_000) });
    ask(&gate, &format!("{COOKIE}={}", encoded(&large)))
        .await
        .assert_token();
    let long = Token::of("user_1").with("long", json!("x".repeat(20_000)));
    ask(
        &gate,
        &format!("{COOKIE}={}", encoded(&session(&long.sign()))),
    )
    .await
    .assert_error(401, "invalid_credentials");
}

#[actix_web::test]
async fn a_token_of_a_jwt_identity_in_a_cookie_is_never_introspected() {
    let issuer = Service::start();
    issuer.answer("/introspect", Reply::json(&json!({ "active": false })));
    let from = [format!("cookie:{COOKIE}*")];
    let opaque = introspection(&format!("{}/introspect", issuer.url)).from(from.clone());
    let supabase = jwt().audience(["imgwire-gate"]).from(from);
    let gate = Gate::accepting(["opaque", "supabase"])
        .identity("opaque", opaque)
        .identity("supabase", supabase)
        .start()
        .await;
    let token = Token::of("user_1").sign();
    let cookies = chunks(&encoded(&session(&token)), 100).join("; ");
    ask(&gate, &cookies).await.assert_token();
    assert!(issuer.all_seen().is_empty());
    let cookies = format!("{COOKIE}={}", encoded(&session("opaque")));
    ask(&gate, &cookies)
        .await
        .assert_error(401, "invalid_credentials");
    assert_eq!(issuer.all_seen(), ["/introspect"]);
}
