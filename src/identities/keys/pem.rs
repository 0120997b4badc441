//! Public keys in PEM (RFC 7468), as files and environment variables hold them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use simple_asn1::ASN1Block;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";

/// The format of a key or a certificate that should be a secret. If it is public, anyone could sign tokens with it.
pub(crate) fn key_format(secret: &[u8]) -> Option<&'static str> {
    let mut parts = secret.windows(BEGIN.len());
    if parts.any(|part| part == BEGIN.as_bytes()) {
        return Some("PEM");
    }
    // Some issuers show the base64 of a key, without the lines around it.
    let text = secret.iter().filter(|byte| !byte.is_ascii_whitespace());
    let decoded = STANDARD.decode(text.copied().collect::<Vec<_>>());
    let is_der = is_der(secret) || decoded.is_ok_and(|decoded| is_der(&decoded));
    is_der.then_some("DER")
}

/// Whether all bytes are one structure in DER, as keys and certificates are (RFC 5280, 4.1).
fn is_der(bytes: &[u8]) -> bool {
    let blocks = simple_asn1::from_der(bytes);
    matches!(blocks.as_deref(), Ok([ASN1Block::Sequence(_, parts)]) if !parts.is_empty())
}

/// Restores the lines of a PEM document. In an environment variable, they are often literal `\n` or blanks.
pub(super) fn normalize(text: &str) -> Result<String, String> {
    let not_pem = || "is not PEM; it must begin with `-----BEGIN PUBLIC KEY-----`".to_owned();
    if text.contains("PRIVATE KEY-----") {
        return Err("is a private key; write the public key".to_owned());
    }
    let mut blocks = text.split(BEGIN).skip(1);
    let (Some(block), None) = (blocks.next(), blocks.next()) else {
        return Err(if text.contains(BEGIN) {
            "has several keys; write one, or a JSON Web Key Set by `jwks`".to_owned()
        } else {
            not_pem()
        });
    };
    let (label, rest) = block.split_once("-----").ok_or_else(not_pem)?;
    let (body, _) = rest.split_once(END).ok_or_else(not_pem)?;
    let body = body.replace("\\r", "").replace("\\n", "");
    let body: Vec<char> = body.chars().filter(|char| !char.is_whitespace()).collect();
    let lines = body
        .chunks(64)
        .map(|line| line.iter().collect::<String>() + "\n");
    let lines: String = lines.collect();
    Ok(format!("{BEGIN}{label}-----\n{lines}{END}{label}-----\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_from_secrets_in_every_format() {
        // An Ed25519 key (RFC 8410, 10.1).
        let text = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
        let der = STANDARD.decode(text).unwrap();
        let pem = format!("{BEGIN}PUBLIC KEY-----\n{text}\n{END}PUBLIC KEY-----\n");
        let wrapped = format!("{}\n{}\n", &text[..20], &text[20..]);
        let beside = [&[0xff, 0][..], pem.as_bytes()].concat();
        for (secret, format) in [
            (pem.as_bytes(), Some("PEM")),
            (&*beside, Some("PEM")),
            (&*der, Some("DER")),
            (text.as_bytes(), Some("DER")),
            (wrapped.as_bytes(), Some("DER")),
            (&der[..der.len() - 1], None),
            (&*[&*der, &[7]].concat(), None),
            (&[0x30; 64][..], None),
            (
                &b"0000000000000000000000000000000000000000000000000"[..],
                None,
            ),
            (&b"MCowBQYDK2Vw-a-text-that-begins-like-a-key"[..], None),
            (&b""[..], None),
        ] {
            assert_eq!(key_format(secret), format, "{secret:?}");
        }
    }
}
