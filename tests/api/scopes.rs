//! `required_scopes`, and the values of `required_claims` and `allowed_claims`.

use serde_json::{Value, json};

use crate::{
    helpers::{Emulator, Gate, Token, eventually},
    process::{GateProcess, write_config},
};

fn requiring(scopes: &[&str]) -> Gate {
    Gate::accepting(["app"]).set("identities.app.required_scopes", scopes)
}

#[actix_web::test]
async fn every_required_scope_is_in_scope_or_scp_as_a_list_or_a_text() {
    let app = requiring(&["upload:write", "openid"]).start().await;
    for (claim, value, is_accepted) in [
        ("scope", json!("openid upload:write"), true),
        ("scope", json!("upload:write  email openid"), true),
        ("scp", json!("openid upload:write"), true),
        ("scp", json!(["upload:write", "openid"]), true),
        ("scope", json!(["upload:write", "email", "openid"]), true),
        ("scope", json!("openid"), false),
        ("scope", json!("openid upload:writer"), false),
        ("scope", json!("openid,upload:write"), false),
        ("scope", json!(["openid upload:write"]), true),
        ("scp", json!(["email openid", 7, "upload:write"]), true),
        ("scope", json!([["openid upload:write"]]), false),
        ("scope", json!(["openid", "UPLOAD:WRITE"]), false),
        ("scope", json!([]), false),
        ("scope", json!(""), false),
        ("scope", json!(null), false),
        (
            "scope",
            json!({ "openid": true, "upload:write": true }),
            false,
        ),
        ("scopes", json!("openid upload:write"), false),
    ] {
        let answer = app
            .ask_as(&Token::of("user_1").with(claim, value.clone()))
            .await;
        if is_accepted {
            answer.assert_token();
        } else {
            answer.assert_error(401, "invalid_credentials");
            let challenge = answer.header("www-authenticate");
            assert_eq!(
                challenge, "Bearer error=\"invalid_token\"",
                "{claim} {value}"
            );
        }
    }
    // One scope may be in each claim.
    let both = Token::of("user_1").with("scp", json!(["openid"]));
    app.ask_as(&both.with("scope", json!("upload:write")))
        .await
        .assert_token();
}

#[actix_web::test]
async fn the_log_names_the_scope_that_is_missing() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&requiring(&["upload:write"]), imgwire.url());
    let gate = GateProcess::start(&config, &[], "info").await;
    for token in [
        Token::of("user_1"),
        Token::of("user_1").with("scp", json!("openid email")),
    ] {
        assert_eq!(gate.ask(&token.sign()).await, Some(401));
    }
    eventually("two lines", async || gate.decisions().len() == 2).await;
    let lines = gate.decisions();
    let reasons: Vec<_> = lines.iter().map(|line| line["reason"].clone()).collect();
    assert_eq!(
        reasons,
        [
            "identity `app`: the token has no `scope` and no `scp`, expected the scope `upload:write`",
            "identity `app`: the token's `scp` is `openid email`, expected the scope `upload:write`",
        ]
    );
}

#[actix_web::test]
async fn expected_values_are_texts_integers_and_booleans() {
    for (expected, found, is_accepted) in [
        (json!(true), json!(true), true),
        (json!(true), json!("true"), false),
        (json!(true), json!(1), false),
        (json!("true"), json!(true), false),
        (json!([true, "true"]), json!("true"), true),
        (json!(7), json!(7), true),
        (json!(7), json!("7"), false),
        (json!(7), json!(7.0), false),
        (json!(-1), json!(-1), true),
        (json!(["a", 7]), json!([1, 7]), true),
        (json!("a"), json!(["b", "a"]), true),
        (json!("a"), json!({ "a": true }), false),
    ] {
        for key in ["required_claims", "allowed_claims"] {
            let app = Gate::accepting(["app"])
                .set(&format!("identities.app.{key}"), json!({ "x": expected }))
                .start()
                .await;
            let answer = app
                .ask_as(&Token::of("user_1").with("x", found.clone()))
                .await;
            let code = if is_accepted {
                ""
            } else {
                "invalid_credentials"
            };
            assert_eq!(answer.code(), code, "{key} {expected} {found}");
            let without = app.ask_as(&Token::of("user_1")).await;
            let code = if key == "allowed_claims" {
                ""
            } else {
                "invalid_credentials"
            };
            assert_eq!(without.code(), code, "{key} {expected}");
            let null = Token::of("user_1").with("x", json!(null));
            assert_eq!(app.ask_as(&null).await.code(), code, "{key} {expected}");
        }
    }
}

/// The cookie tokens of one provider often have no `azp`, and its tokens for other origins have another.
#[actix_web::test]
async fn an_allowed_claim_is_checked_only_if_the_token_has_it() {
    let app = Gate::accepting(["app"])
        .set(
            "identities.app.allowed_claims",
            json!({ "azp": ["https://app.example.com"] }),
        )
        .start()
        .await;
    let token = |azp: Option<Value>| {
        let token = Token::of("user_1");
        azp.map_or(token.clone(), |azp| token.with("azp", azp))
            .sign()
    };
    for (azp, is_accepted) in [
        (None, true),
        (Some(json!("https://app.example.com")), true),
        (Some(json!("https://evil.example")), false),
        (Some(json!(["https://evil.example"])), false),
        (Some(json!(null)), true),
    ] {
        let code = if is_accepted {
            ""
        } else {
            "invalid_credentials"
        };
        let bearer = app.ask().bearer(&token(azp.clone())).send().await;
        assert_eq!(bearer.code(), code, "{azp:?}");
        let cookie = format!("__session={}", token(azp.clone()));
        let cookie = app.ask().header("cookie", &cookie).send().await;
        assert_eq!(cookie.code(), code, "{azp:?}");
    }
}
