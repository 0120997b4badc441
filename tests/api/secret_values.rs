//! Secrets and keys of the config: encodings, rotation, and texts that are probably not the secret.

use std::fs;

use ::base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::{
    helpers::{Gate, TestApp, Token, env, jwt, settings},
    signing::SigningKey,
};

/// A secret that is no text.
const BYTES: [u8; 35] = [
    0xff, 0xfb, 0xef, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
    22, 23, 24, 25, 26, 27, 28, 29, 30, 10,
];

pub(crate) const GOOD: &str =
    "a-secret-of-the-tests-that-is-long-enough-for-every-use,-even-for-the-session's-cookie";

pub(crate) fn gate(secret: &Value) -> Gate {
    let identity = jwt().audience(["imgwire-gate"]).set("secret", secret);
    Gate::accepting(["app"]).identity("app", identity)
}

fn by(secret: &[u8]) -> String {
    Token::of("user_1").sign_with(&EncodingKey::from_secret(secret))
}

pub(crate) async fn status(app: &TestApp, token: &str) -> u16 {
    app.ask().bearer(token).send().await.status.as_u16()
}

/// The faults of a config whose variable `VALUE` has this value.
pub(crate) fn fault(gate: &Gate, variable: &str) -> String {
    let environment = |name: &str| match name {
        "VALUE" => Some(variable.to_owned()),
        _ => Some(GOOD.to_owned()),
    };
    let config = gate.config("https://api.imgwire.dev", std::path::Path::new("data"));
    match settings::load("gate.toml", &config, &environment) {
        Ok(_) => String::new(),
        Err(faults) => {
            let faults = faults.to_string();
            assert!(
                variable.len() < 12 || !faults.contains(variable),
                "{faults}"
            );
            faults
        }
    }
}

#[actix_web::test]
async fn secrets_in_every_encoding_verify_tokens() {
    let hex: String = BYTES.iter().map(|byte| format!("{byte:02x}")).collect();
    let wrapped = STANDARD.encode(BYTES);
    let wrapped = format!("{}\n{}\n", &wrapped[..20], &wrapped[20..]);
    for (encoding, text) in [
        ("base64", STANDARD.encode(BYTES)),
        ("base64", wrapped),
        ("base64url", URL_SAFE_NO_PAD.encode(BYTES)),
        ("base64url", URL_SAFE_NO_PAD.encode(BYTES) + "="),
        ("hex", hex.clone()),
        ("hex", hex.to_uppercase()),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, &text).unwrap();
        let app = gate(&json!({ "file": file }))
            .set("identities.app.secret_encoding", encoding)
            .start()
            .await;
        assert_eq!(status(&app, &by(&BYTES)).await, 200, "{encoding}: {text}");
        assert_eq!(status(&app, &by(text.as_bytes())).await, 401, "{encoding}");
    }
}

#[actix_web::test]
async fn a_raw_file_is_the_secret_with_all_its_bytes_and_a_text_file_without_its_line_end() {
    let text = b"  \"a secret in a file, which is long enough\"\n\n";
    for (bytes, encoding, secret) in [
        (&BYTES[..], Some("raw"), &BYTES[..]),
        (text, Some("raw"), text),
        (
            b"a secret in a file, which is long enough\n",
            None,
            b"a secret in a file, which is long enough",
        ),
        (
            b"a secret in a file, which is long enough\r\n",
            None,
            b"a secret in a file, which is long enough",
        ),
        (
            b"a secret in a file,\nwhich has two lines",
            None,
            b"a secret in a file,\nwhich has two lines",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, bytes).unwrap();
        let mut gate = gate(&json!({ "file": file }));
        if let Some(encoding) = encoding {
            gate = gate.set("identities.app.secret_encoding", encoding);
        }
        let app = gate.start().await;
        assert_eq!(status(&app, &by(secret)).await, 200, "{encoding:?}");
        if bytes != secret {
            assert_eq!(status(&app, &by(bytes)).await, 401, "{encoding:?}");
        }
    }
}

#[test]
fn a_secret_in_another_encoding_or_too_short_after_decoding_is_refused() {
    let with = |encoding: &str, text: &str| {
        let gate = gate(&env("VALUE")).set("identities.app.secret_encoding", encoding);
        fault(&gate, text)
    };
    let long = "+/".repeat(24);
    for (encoding, text, expected) in [
        ("base64", GOOD, "is not base64; write the encoding"),
        ("base64url", &long, "is not base64url"),
        ("hex", GOOD, "is not hex"),
        ("hex", "0123456789abcde", "is not hex"),
        ("hex", &"0f".repeat(31), "at least 32 bytes and has 31"),
        (
            "base64",
            &STANDARD.encode([7; 31]),
            "at least 32 bytes and has 31",
        ),
        ("raw", "0123456789", "at least 32 bytes and has 10"),
        ("base32", GOOD, "secret_encoding: expected \"base64\""),
    ] {
        let fault = with(encoding, text);
        assert!(fault.contains(expected), "{encoding}: {fault:?}");
    }
    assert_eq!(with("base64", &long), "");
    assert_eq!(with("base64", &format!("{}\n{long}", &long[..20])), "");
    // The last letter has bits after the last byte, which Node.js ignores.
    for end in ["c=", "d=", "d"] {
        let text = STANDARD.encode([7; 35]).replace("c=", end);
        assert_eq!(with("base64", &text), "", "{text}");
    }
}

#[test]
fn a_text_that_is_probably_not_the_secret_is_refused_for_every_secret() {
    let cases = [
        (format!("\"{GOOD}\""), "in quotes"),
        (format!("'{GOOD}'"), "in quotes"),
        (format!("'{GOOD}' "), "in quotes"),
        (format!("\u{201c}{GOOD}\u{201d}"), "in quotes"),
        (format!(" {GOOD}"), "begins with a blank"),
        (format!("{GOOD}\t"), "ends with a blank"),
        (format!("{GOOD}\n"), "ends with a line end"),
        (format!("{GOOD}\r"), "ends with a line end"),
        (format!("\u{feff}{GOOD}"), "begins with a byte order mark"),
        (format!("{GOOD}\n{GOOD}"), "has a line break in it"),
        (format!("{GOOD}\r\n{GOOD}"), "has a line break in it"),
        ("   ".to_owned(), "is blank"),
        ("${APP_JWT_SECRET}".to_owned(), "`${...}`"),
        (format!("{GOOD}${{APP_JWT_SECRET}}"), "`${...}`"),
        (
            "${APP_JWT_SECRET:-the default of the secret, long enough}".to_owned(),
            "`${...}`",
        ),
        (
            "$APP_JWT_SECRET_OF_THE_APP_IN_PRODUCTION".to_owned(),
            "`${...}`",
        ),
        (
            "$(cat /run/secrets/the_secret_of_the_app)".to_owned(),
            "`$(...)`",
        ),
        (
            "{{ .Values.secrets.jwt | required }}".to_owned(),
            "template",
        ),
        (
            "<the secret of your app, at least 32 bytes>".to_owned(),
            "template",
        ),
        ("changeme".to_owned(), "example"),
        (
            "Change-Me-change-me-change-me-change-me".to_owned(),
            "example",
        ),
        (format!("changeme-{GOOD}"), "example"),
        (
            "your-secret-your-secret-your-secret-your-secret".to_owned(),
            "example",
        ),
    ];
    let keys = [
        "imgwire.api_key",
        "session.key",
        "management.token",
        "identities.app.secret",
        "identities.opaque.client_secret",
        "stores.shared.password",
        "policies.member.token",
    ];
    for key in keys {
        let opaque = json!({
            "kind": "introspection", "url": "https://id.example.com/", "client_id": "gate",
            "client_secret": env("OTHER"),
        });
        let member = json!({
            "kind": "workspace_member", "url": "https://app.example.com/{workspace}/{user}",
        });
        let shared = json!({ "url": "redis://gate@127.0.0.1:9" });
        let gate = gate(&env("OTHER"))
            .identity("opaque", opaque)
            .policy("member", member)
            .store("shared", shared)
            .set(key, env("VALUE"));
        for (text, expected) in &cases {
            let fault = fault(&gate, text);
            assert!(
                fault.contains(&format!("{key}: the environment variable `VALUE` "))
                    && fault.contains(expected),
                "{key}, {text:?}: {fault:?}"
            );
        }
        if key != "imgwire.api_key" {
            // Quotes and dollars within a secret are part of it.
            for good in [format!("\"a{GOOD}"), format!("{GOOD}$a ${{ $$ \"x\" '")] {
                assert_eq!(fault(&gate, &good), "", "{key}: {good}");
            }
        }
    }
}

#[actix_web::test]
async fn a_secret_that_only_resembles_a_template_a_document_or_an_example_is_used() {
    for text in [
        "{a secret that begins like a document, long enough",
        "{\"a\": \"secret that is not a JSON object, long enough",
        "{ a secret in braces, which is long enough for HS256 }",
        "%9f$k2!x0c7v#b5n@m1q8w&e4r6t*y3u5i2o%",
        "<9f$k2!x0c7v#b5n@m1q8w&e4r6t*y3u5i2o>",
        "exchange-members-of-the-lists-which-are-long-enough",
        "Exchange_Member.Exchange-Member.Exchange Member",
        "a-change-for-me-and-your-best-secret-which-is-long",
    ] {
        let gate = gate(&env("VALUE")).secret("VALUE", text);
        let app = gate.start().await;
        assert_eq!(status(&app, &by(text.as_bytes())).await, 200, "{text}");
    }
    for text in [
        "change me, please, before you start the gate",
        "changeme1234567890123456789012345678901234567890",
        "%THE_SECRET_OF_THE_APP_IN_PRODUCTION%",
        "<your-jwt-signing-key-of-at-least-32-bytes>",
    ] {
        assert_ne!(fault(&gate(&env("VALUE")), text), "", "{text}");
    }
}

#[test]
fn words_within_a_document_do_not_make_it_an_example() {
    let with = |key: &str, text: &str| {
        let gate = gate(&env("OTHER")).without("identities.app.secret");
        fault(
            &gate.set(&format!("identities.app.{key}"), env("VALUE")),
            text,
        )
    };
    let key = |kid: &str| json!({ "kty": "oct", "kid": kid, "k": URL_SAFE_NO_PAD.encode(BYTES) });
    let set = json!({ "keys": [key("change-me"), key("${KID}")] }).to_string();
    assert_eq!(with("jwks", &set), "");
    assert_eq!(with("secret", &set), "");
    assert_eq!(with("secret", &set.replace(',', ",\n")), "");
    for (text, expected) in [
        ("changeme", "is the text of an example"),
        ("${THE_KEY_SET_OF_THE_APP}", "`${...}`"),
        ("{{ .Values.keys | toJson }}", "is a template"),
    ] {
        let fault = with("jwks", text);
        assert!(fault.contains(expected), "{text}: {fault:?}");
    }
}

#[actix_web::test]
async fn keys_of_type_oct_are_secrets() {
    let (one, other) = ([7; 32], [8; 32]);
    let jwk = |kid: &str, secret: &[u8]| json!({ "kty": "oct", "kid": kid, "k": URL_SAFE_NO_PAD.encode(secret) });
    let set = json!({ "keys": [jwk("one", &one), jwk("other", &other)] });
    let by = |kid: Option<&str>, secret: &[u8]| {
        let mut token = Token::of("user_1");
        token.header = Header::new(Algorithm::HS256);
        token.header.kid = kid.map(str::to_owned);
        token.sign_with(&EncodingKey::from_secret(secret))
    };
    let start = async |key: &str, text: &Value| {
        let gate = gate(&env("OTHER")).without("identities.app.secret");
        let gate = gate.set(&format!("identities.app.{key}"), env("VALUE"));
        gate.secret("VALUE", &text.to_string()).start().await
    };
    let app = start("jwks", &set).await;
    for (kid, secret, expected) in [
        (Some("one"), &one, 200),
        (Some("other"), &other, 200),
        (Some("one"), &other, 401),
        (Some("unknown"), &one, 401),
        (None, &one, 401),
    ] {
        assert_eq!(status(&app, &by(kid, secret)).await, expected, "{kid:?}");
    }
    // As `secret`, every key is tried, as with a list of secrets.
    let app = start("secret", &set).await;
    for (kid, secret) in [(Some("x"), &one), (None, &other)] {
        assert_eq!(status(&app, &by(kid, secret)).await, 200);
    }
    let app = start("secret", &jwk("one", &one)).await;
    assert_eq!(status(&app, &by(None, &one)).await, 200);
    assert_eq!(
        status(&app, &by(None, set.to_string().as_bytes())).await,
        401
    );

    let ec = SigningKey::new("public", Algorithm::ES256).jwk();
    for (key, text, expected) in [
        (
            "secret",
            json!({ "keys": [jwk("short", &[7; 31])] }),
            "`short` cannot be used: it is too short: it must have at least 32 bytes and has 31",
        ),
        (
            "secret",
            json!({ "keys": [ec] }),
            "`public` cannot be used: its `alg` is `ES256`",
        ),
        (
            "secret",
            json!({ "keys": [], "comment": "a set without keys" }),
            "has no key",
        ),
        ("jwks", json!({ "keys": [] }), "has no key"),
        (
            "jwks",
            json!({ "keys": [jwk("short", &[7; 31])] }),
            "has no usable key: the key `short`",
        ),
        (
            "secret",
            json!({ "password": "0123456789012345678901234567890" }),
            "begins like a JSON Web Key, but is not a JSON Web Key Set",
        ),
    ] {
        let gate = gate(&env("OTHER")).without("identities.app.secret");
        let gate = gate.set(&format!("identities.app.{key}"), env("VALUE"));
        let fault = fault(&gate, &text.to_string());
        assert!(fault.contains(expected), "{text}: {fault:?}");
    }
}
