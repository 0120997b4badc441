//! Public keys in PEM (RFC 7468), as files and environment variables hold them.

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";

/// Whether a text that should be a secret is a key or a certificate in PEM.
pub(crate) fn is_pem(text: &str) -> bool {
    text.contains(BEGIN)
}

/// Restores the lines of a PEM document. In an environment variable, they are often literal `\n` or blanks.
pub(super) fn normalize(text: &str) -> Result<String, String> {
    let not_pem = || "is not PEM; it must begin with `-----BEGIN PUBLIC KEY-----`".to_owned();
    if text.contains("PRIVATE KEY-----") {
        return Err("is a private key; write the public key".to_owned());
    }
    let mut blocks = text.split(BEGIN).skip(1);
    let (Some(block), None) = (blocks.next(), blocks.next()) else {
        return Err(if is_pem(text) {
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
