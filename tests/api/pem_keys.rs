//! Public keys in PEM: in files and variables, and those that are refused.

use ::base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};

use crate::{
    helpers::{Gate, Token, env},
    secret_values::{GOOD, fault, gate, status},
    signing::pem,
};

#[test]
fn a_key_in_pem_is_not_a_shared_secret() {
    let public = include_str!("../keys/rsa_public.pem");
    let fault = fault(&gate(&env("VALUE")), public.trim());
    assert!(
        fault.contains("is a key in PEM, not a shared secret; write `public_key`"),
        "{fault}"
    );
}

#[test]
fn a_public_key_is_not_a_shared_secret_in_any_encoding() {
    for pem in [
        include_str!("../keys/rsa_public.pem"),
        include_str!("../keys/ec_public.pem"),
        include_str!("../keys/ed_public.pem"),
    ] {
        let pem = pem.trim();
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(&body).unwrap();
        let hex = |bytes: &[u8]| -> String {
            let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
            digits.collect()
        };
        for (encoding, text, format) in [
            (None, body.clone(), "DER"),
            (Some("base64"), STANDARD.encode(pem), "PEM"),
            (Some("base64"), body.clone(), "DER"),
            (Some("base64url"), URL_SAFE_NO_PAD.encode(pem), "PEM"),
            (Some("base64url"), URL_SAFE_NO_PAD.encode(&der), "DER"),
            (Some("hex"), hex(pem.as_bytes()), "PEM"),
            (Some("hex"), hex(&der), "DER"),
            (Some("raw"), pem.to_owned(), "PEM"),
            (Some("raw"), body.clone(), "DER"),
        ] {
            let gate = match encoding {
                Some(encoding) => {
                    gate(&env("VALUE")).set("identities.app.secret_encoding", encoding)
                }
                None => gate(&env("VALUE")),
            };
            let fault = fault(&gate, &text);
            let expected = format!("is a key in {format}, not a shared secret");
            assert!(fault.contains(&expected), "{encoding:?} {text}: {fault}");
        }
    }
}

fn public_key(algorithm: &str) -> Gate {
    gate(&env("OTHER"))
        .without("identities.app.secret")
        .set("identities.app.algorithms", [algorithm])
        .set("identities.app.public_key", env("VALUE"))
}

#[actix_web::test]
async fn a_public_key_in_a_variable_may_have_lost_its_line_ends() {
    let public = include_str!("../keys/ed_public.pem").trim();
    let private = include_str!("../keys/ed_private.pem");
    let mut token = Token::of("user_1");
    token.header = Header::new(Algorithm::EdDSA);
    let token = token.sign_with(&EncodingKey::from_ed_pem(private.as_bytes()).unwrap());
    for text in [
        public.to_owned(),
        public.replace('\n', "\\n"),
        public.replace('\n', "\\r\\n") + "\\n",
        public.replace('\n', " "),
        public.replace('\n', "\r\n"),
        format!("\u{feff}\n {public}\n\n"),
    ] {
        let app = public_key("EdDSA").secret("VALUE", &text).start().await;
        assert_eq!(status(&app, &token).await, 200, "{text:?}");
    }
    for (text, expected) in [
        (format!("\"{public}\""), "in quotes"),
        (public.repeat(2), "has several keys"),
        ("${PUBLIC_KEY}".to_owned(), "`${...}`"),
        (
            public.replace("-----", ""),
            "must begin with `-----BEGIN PUBLIC KEY-----`",
        ),
        (private.replace('\n', "\\n"), "is a private key"),
    ] {
        let fault = fault(&public_key("EdDSA"), &text);
        assert!(fault.contains(expected), "{text:?}: {fault:?}");
    }
}

/// A value of ASN.1 in DER.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x82][..], &length, &content].concat()
}

/// A public key in PEM.
fn spki(identifiers: &[u8], key: &[u8]) -> String {
    let identifiers = der(0x30, &[identifiers]);
    pem(
        "PUBLIC KEY",
        &der(0x30, &[&identifiers, &der(3, &[&[0], key])]),
    )
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> String {
    let key = der(0x30, &[&der(2, &[&[0], modulus]), &der(2, &[exponent])]);
    let identifier = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
    spki(&identifier, &key)
}

fn ed25519(point: [u8; 32]) -> String {
    spki(&[6, 3, 0x2b, 0x65, 0x70], &point)
}

#[test]
fn a_weak_or_malformed_public_key_in_pem_is_refused() {
    let ec = include_str!("../keys/ec_public.pem");
    let p256 = [
        6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7,
    ];
    let mut one = [0; 32];
    one[0] = 1;
    let mut two = [0; 32];
    two[0] = 2;
    let point = [&[4][..], &[1; 64]].concat();
    for (algorithm, pem, expected) in [
        (
            "RS256",
            rsa(&[0xff; 128], &[1, 0, 1]),
            "1024 bits; it must have at least 2048",
        ),
        ("RS256", rsa(&[0xff; 256], &[1]), "exponent is weak"),
        ("PS256", rsa(&[0xff; 256], &[4]), "exponent is weak"),
        ("RS256", rsa(&[0xfe; 256], &[1, 0, 1]), "modulus is even"),
        (
            "RS256",
            rsa(&[0xff; 1040], &[1, 0, 1]),
            "8320 bits; the gate supports at most 8192",
        ),
        ("RS256", rsa(&[0xff; 256], &[1, 0, 1]), ""),
        (
            "ES384",
            ec.to_owned(),
            "is a P-256 key, which ES384 cannot use",
        ),
        ("ES256", spki(&p256, &point), "not on P-256 or P-384"),
        (
            "ES256",
            spki(&p256, &[&[4][..], &[1; 132]].concat()),
            "not on P-256 or P-384",
        ),
        ("EdDSA", ed25519(one), "small order"),
        ("Ed25519", ed25519([0; 32]), "small order"),
        ("EdDSA", ed25519(two), "not a point on the curve"),
    ] {
        let fault = fault(&public_key(algorithm), pem.trim());
        assert!(fault.contains(expected), "{algorithm}: {fault:?}");
        assert_eq!(fault.is_empty(), expected.is_empty(), "{fault:?}");
    }
}

#[test]
fn algorithms_that_the_gate_does_not_have_are_refused_with_the_reason() {
    for (algorithm, expected) in [
        (
            "ES512",
            "`ES512` is not supported: the JWT library has no curve for it; let the issuer sign with ES256",
        ),
        ("Ed448", "`Ed448` is not supported"),
        ("none", "`none` accepts tokens that anyone can write"),
        (
            "RS-256",
            "unknown algorithm `RS-256`; did you mean `RS256`?",
        ),
    ] {
        let fault = fault(&public_key(algorithm), GOOD);
        assert!(fault.contains(expected), "{fault}");
    }
}
