//! JSON Web Key Sets as issuers publish them: optional members, odd encodings, and keys that cannot be used.

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::{
    helpers::{Emulator, Gate, TestApp, Token, eventually, published_jwt},
    keys::{JWKS, ask, by_url},
    process::{GateProcess, write_config},
    service::{Reply, Service},
    signing::{SigningKey, set},
    tokens::base64,
};

/// A published key with other members. `null` removes one.
pub(crate) fn with(key: &SigningKey, members: &Value) -> Value {
    let mut jwk = key.jwk();
    for (name, value) in members.as_object().unwrap() {
        match value {
            Value::Null => drop(jwk.as_object_mut().unwrap().remove(name)),
            value => jwk[name] = value.clone(),
        }
    }
    jwk
}

/// A key as Microsoft Entra ID publishes it.
fn without_optional_members(key: &SigningKey) -> Value {
    with(key, &json!({ "alg": null, "use": null, "kid": null }))
}

/// A gate whose issuer publishes these keys.
pub(crate) async fn gate(algorithms: &[&str], keys: &[Value]) -> (TestApp, Service) {
    let issuer = Service::start();
    issuer.answer(JWKS, Reply::json(&json!({ "keys": keys })));
    let idp = published_jwt(algorithms, &format!("{}{JWKS}", issuer.url));
    let app = Gate::accepting(["idp"]).identity("idp", idp).start().await;
    (app, issuer)
}

/// The lines about keys in the log of a gate whose issuer publishes this set.
async fn logged(published: &Value) -> Vec<Value> {
    let issuer = Service::start();
    issuer.answer(JWKS, Reply::json(published));
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&by_url(&issuer), imgwire.url());
    let gate = GateProcess::spawn(&config, &[], "info", &[]);
    let is_last = |line: &Value| {
        let message = line["message"].as_str().unwrap_or_default();
        message == "keys fetched" || message == "no usable key"
    };
    eventually("the keys", async || gate.lines().iter().any(is_last)).await;
    let mut lines = gate.lines();
    lines.retain(|line| is_last(line) || line["message"] == "key skipped");
    lines
}

#[actix_web::test]
async fn a_key_without_alg_serves_every_configured_algorithm_of_its_type() {
    let keys = [
        SigningKey::new("rsa", Algorithm::RS256),
        SigningKey::new("ec", Algorithm::ES256),
        SigningKey::new("ed", Algorithm::EdDSA),
    ];
    for members in [
        json!({ "alg": null, "use": null }),
        json!({ "alg": null, "use": null, "kid": null }),
        json!({ "alg": null }),
        json!({ "use": null, "key_ops": ["verify"] }),
    ] {
        let published: Vec<_> = keys.iter().map(|key| with(key, &members)).collect();
        let (app, _issuer) = gate(&["RS256", "PS256", "ES256", "EdDSA"], &published).await;
        for key in &keys {
            ask(&app, &key.sign(&Token::of("user_1")))
                .await
                .assert_token();
        }
        // The other algorithm of the key's type, unless the key names one.
        let status = if members.get("alg").is_some() {
            200
        } else {
            401
        };
        let token = keys[0].sign_by(Algorithm::PS256, &Token::of("user_1"));
        assert_eq!(ask(&app, &token).await.status, status, "{members}");
        let keys = r#"imgwire_gate_identity_keys{identity="idp"}"#;
        assert_eq!(app.metric(keys).await, 3.0);
    }
}

#[actix_web::test]
async fn a_key_serves_no_algorithm_that_the_config_does_not_have() {
    let key = SigningKey::new("rsa", Algorithm::RS256);
    let (app, _issuer) = gate(&["PS256"], &[without_optional_members(&key)]).await;
    for (algorithm, status) in [
        (Algorithm::PS256, 200),
        (Algorithm::RS256, 401),
        (Algorithm::PS512, 401),
    ] {
        let token = key.sign_by(algorithm, &Token::of("user_1"));
        assert_eq!(ask(&app, &token).await.status, status, "{algorithm:?}");
    }
}

#[actix_web::test]
async fn keys_are_selected_by_kid_and_then_by_type() {
    let make = |kid: &str, algorithm| SigningKey::new(kid, algorithm);
    let (rsa, ec) = (
        make("same", Algorithm::RS256),
        make("same", Algorithm::ES256),
    );
    let (first, second) = (
        make("first", Algorithm::ES256),
        make("second", Algorithm::ES256),
    );
    let published = [
        with(&rsa, &json!({ "alg": null })),
        with(&ec, &json!({ "alg": null })),
        without_optional_members(&first),
        without_optional_members(&second),
    ];
    let (app, _issuer) = gate(&["RS256", "ES256"], &published).await;
    // One `kid` of two types, and keys without a `kid`, all of which are tried.
    for key in [&rsa, &ec, &first, &second] {
        ask(&app, &key.sign(&Token::of("user_1")))
            .await
            .assert_token();
    }
    for key in [&first, &second] {
        ask(&app, &key.sign_without_kid(&Token::of("user_2")))
            .await
            .assert_token();
    }
    // A key with a `kid` is used only for that `kid`, or if it is the only one of its type.
    ask(&app, &ec.sign_without_kid(&Token::of("user_1")))
        .await
        .assert_error(401, "invalid_credentials");
    ask(&app, &rsa.sign_without_kid(&Token::of("user_1")))
        .await
        .assert_token();
    let mut renamed = make("", Algorithm::ES256);
    renamed.kid = "same".to_owned();
    ask(&app, &renamed.sign(&Token::of("user_1")))
        .await
        .assert_error(401, "invalid_credentials");
}

#[actix_web::test]
async fn ed25519_is_another_name_of_eddsa_everywhere() {
    let key = SigningKey::new("ed", Algorithm::EdDSA);
    for configured in ["EdDSA", "Ed25519"] {
        for published in ["EdDSA", "Ed25519"] {
            let jwk = with(&key, &json!({ "alg": published }));
            let (app, _issuer) = gate(&[configured], &[jwk]).await;
            for name in ["EdDSA", "Ed25519"] {
                let token = key.sign_named(name, &Token::of("user_1"));
                ask(&app, &token).await.assert_token();
            }
            let token = key.sign_named("Ed448", &Token::of("user_1"));
            ask(&app, &token)
                .await
                .assert_error(401, "invalid_credentials");
        }
    }
}

fn decoded(jwk: &Value, name: &str) -> Vec<u8> {
    use ::base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

    URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap()
}

#[actix_web::test]
async fn surplus_and_missing_leading_zero_bytes_do_not_matter() {
    let padded = |jwk: &Value, name: &str| base64(&[&[0], &decoded(jwk, name)[..]].concat());
    let rsa = SigningKey::new("rsa", Algorithm::RS256);
    let jwk = rsa.jwk();
    let jwk = with(
        &rsa,
        &json!({ "n": padded(&jwk, "n"), "e": padded(&jwk, "e") }),
    );
    let (app, _issuer) = gate(&["RS256"], &[jwk]).await;
    ask(&app, &rsa.sign(&Token::of("user_1")))
        .await
        .assert_token();

    // About one of 128 keys has a coordinate that begins with a zero byte, which some issuers omit.
    let ec = loop {
        let key = SigningKey::new("ec", Algorithm::ES256);
        if decoded(&key.jwk(), "x")[0] == 0 {
            break key;
        }
    };
    let jwk = ec.jwk();
    let short = json!({ "x": base64(&decoded(&jwk, "x")[1..]), "y": padded(&jwk, "y") });
    let (app, _issuer) = gate(&["ES256"], &[with(&ec, &short)]).await;
    ask(&app, &ec.sign(&Token::of("user_1")))
        .await
        .assert_token();
}

/// Keys that cannot be used, by their `kid`, with the reason in the log.
fn unusable() -> Vec<(Value, &'static str)> {
    let rsa = SigningKey::new("", Algorithm::RS256);
    let ec = SigningKey::new("", Algorithm::ES256);
    let ed = SigningKey::new("", Algorithm::EdDSA);
    let modulus = decoded(&rsa.jwk(), "n");
    let mut even = modulus.clone();
    even[255] &= 0xfe;
    let mut other = decoded(&ec.jwk(), "y");
    other[31] ^= 1;
    let (mut minus_one, mut order_8) = ([0xff; 32], [0; 32]);
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    order_8.copy_from_slice(&[
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ]);
    let mut off_curve = [0; 32];
    off_curve[0] = 2;
    let cases = [
        (
            &rsa,
            json!({ "n": base64(&modulus[128..]) }),
            "it must have at least 2048",
        ),
        (
            &rsa,
            json!({ "n": base64(&[&modulus[..], &[1; 800]].concat()) }),
            "at most 8192",
        ),
        (&rsa, json!({ "n": base64(&even) }), "modulus is even"),
        (&rsa, json!({ "e": "AQ" }), "exponent is weak"),
        (&rsa, json!({ "e": "AQAA" }), "exponent is weak"),
        (
            &rsa,
            json!({ "e": base64(&[0xff; 5]) }),
            "more than 33 bits",
        ),
        (&rsa, json!({ "n": "AQAB==" }), "`n` is not base64url"),
        (&rsa, json!({ "d": "AQAB" }), "private key"),
        (
            &rsa,
            json!({ "alg": "ES256" }),
            "`alg` is ES256, which its type does not allow",
        ),
        (&rsa, json!({ "alg": "RSA-OAEP" }), "`alg` is `RSA-OAEP`"),
        (&rsa, json!({ "use": "enc" }), "`use` is `enc`"),
        (
            &rsa,
            json!({ "key_ops": ["sign"] }),
            "`key_ops` do not contain `verify`",
        ),
        (
            &ec,
            json!({ "y": base64(&other) }),
            "not on the curve P-256",
        ),
        (&ec, json!({ "crv": "P-521" }), "`crv` is `P-521`"),
        (
            &ed,
            json!({ "x": base64(&[1; 31]) }),
            "31 bytes instead of 32",
        ),
        (&ed, json!({ "x": base64(&minus_one) }), "small order"),
        (&ed, json!({ "x": base64(&order_8) }), "small order"),
        (
            &ed,
            json!({ "x": base64(&off_curve) }),
            "not a point on the curve",
        ),
        (
            &ed,
            json!({ "x": base64(&[0xff; 32]) }),
            "not a point on the curve",
        ),
        (
            &ed,
            json!({ "kty": "oct", "k": base64(&[7; 64]), "x": null, "alg": null }),
            "must not be published",
        ),
    ];
    let keys = cases.into_iter().enumerate();
    keys.map(|(number, (key, mut members, reason))| {
        members["kid"] = json!(format!("key-{number}"));
        (with(key, &members), reason)
    })
    .collect()
}

#[actix_web::test]
async fn the_log_says_which_keys_cannot_be_used_and_why() {
    let unusable = unusable();
    let mut keys: Vec<_> = unusable.iter().map(|(key, _)| key.clone()).collect();
    let lines = logged(&json!({ "keys": keys })).await;
    let (last, skipped) = lines.split_last().unwrap();
    assert_eq!(skipped.len(), unusable.len(), "{lines:?}");
    for (number, (line, (key, reason))) in skipped.iter().zip(&unusable).enumerate() {
        assert_eq!(
            (&line["level"], &line["kid"], &line["index"]),
            (&json!("WARN"), &key["kid"], &json!(number)),
            "{line}"
        );
        assert!(line["reason"].as_str().unwrap().contains(reason), "{line}");
    }
    // None is left.
    assert_eq!(
        (&last["level"], &last["message"], &last["skipped"]),
        (&json!("ERROR"), &json!("no usable key"), &json!(20)),
        "{last}"
    );
    let good = SigningKey::new("good", Algorithm::ES256);
    keys.push(good.jwk());
    let lines = logged(&json!({ "keys": keys })).await;
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["message"], &last["keys"], &last["skipped"]),
        (&json!("keys fetched"), &json!(1), &json!(20)),
        "{last}"
    );
}

#[actix_web::test]
async fn the_log_of_a_thousand_unusable_keys_is_short() {
    let long = "\u{7}x".repeat(1000);
    let key = json!({ "kty": long, "kid": long, "alg": null });
    let lines = logged(&json!({ "keys": vec![key; 40] })).await;
    assert_eq!(lines.len(), 21);
    assert!(lines.iter().all(|line| line.to_string().len() < 2000));
    assert_eq!(lines.last().unwrap()["skipped"], 40);
}

#[actix_web::test]
async fn no_unusable_key_verifies_a_token() {
    let keys: Vec<_> = unusable().into_iter().map(|(key, _)| key).collect();
    let good = SigningKey::new("good", Algorithm::ES256);
    let published = [&keys[..], &[good.jwk()]].concat();
    let (app, _issuer) = gate(&["RS256", "ES256", "EdDSA"], &published).await;
    ask(&app, &good.sign(&Token::of("user_1")))
        .await
        .assert_token();
    // With `e = 1`, the signature is the padded hash itself. With a small order, zero bytes are a signature.
    let mut stranger = SigningKey::new("", Algorithm::EdDSA);
    for key in &keys {
        key["kid"].as_str().unwrap().clone_into(&mut stranger.kid);
        let token = stranger.sign(&Token::of("user_1"));
        let (message, _) = token.rsplit_once('.').unwrap();
        let mut zero = [0; 64];
        zero[0] = 1;
        for token in [token.clone(), format!("{message}.{}", base64(&zero))] {
            ask(&app, &token)
                .await
                .assert_error(401, "invalid_credentials");
        }
    }
}

#[actix_web::test]
async fn key_endpoints_are_asked_for_key_sets_and_then_for_anything() {
    let issuer = Service::start();
    let key = SigningKey::new("one", Algorithm::ES256);
    let reply = Reply::json(&set(&[&key])).header("content-type", "application/jwk-set+json");
    issuer.answer(JWKS, reply);
    let app = by_url(&issuer).start().await;
    ask(&app, &key.sign(&Token::of("user_1")))
        .await
        .assert_token();
    let [request] = &issuer.seen(JWKS)[..] else {
        panic!("one request");
    };
    let accept = "application/jwk-set+json, application/json;q=0.9, */*;q=0.1";
    assert_eq!(request.headers["accept"], accept);
}
