//! Texts that are probably not the secret that the operator means, and the encodings of secrets.

use base64::{
    Engine as _,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use schemars::JsonSchema;
use serde::{Deserialize, de::IgnoredAny};

/// How the text of a secret stands for its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SecretEncoding {
    /// RFC 4648, 4. Padding is optional.
    Base64,
    /// RFC 4648, 5. Padding is optional.
    Base64Url,
    /// Two hexadecimal digits per byte.
    Hex,
    /// The bytes of the file or the variable.
    Raw,
}

/// Quotes that shells and `.env` files take away, and those that Docker's `--env-file` and Kubernetes keep.
const QUOTES: [(char, char); 5] = [
    ('"', '"'),
    ('\'', '\''),
    ('`', '`'),
    ('\u{201c}', '\u{201d}'),
    ('\u{2018}', '\u{2019}'),
];

/// The words that stand in examples in place of a secret.
const PLACEHOLDERS: [[&str; 2]; 4] = [
    ["change", "me"],
    ["change", "this"],
    ["replace", "me"],
    ["your", "secret"],
];

/// Says what is wrong with the text of a secret, without showing it.
pub(super) fn check(text: &str) -> Result<(), String> {
    let trimmed = text.trim_matches(is_blank);
    if trimmed.is_empty() {
        return Err("is blank".to_owned());
    }
    let is_quoted = |(open, close): &(char, char)| {
        trimmed
            .strip_prefix(*open)
            .is_some_and(|rest| rest.ends_with(*close))
    };
    if QUOTES.iter().any(is_quoted) {
        return Err(
            "is in quotes; remove them, because they would be part of the secret".to_owned(),
        );
    }
    if trimmed.len() < text.len() {
        let (before, after) = text.split_once(trimmed).unwrap_or_default();
        let place = if before.is_empty() { "ends" } else { "begins" };
        let blank = match (before.chars().next(), after.chars().next()) {
            (Some('\u{feff}'), _) => "a byte order mark",
            (Some('\n' | '\r'), _) | (None, Some('\n' | '\r')) => "a line end",
            _ => "a blank",
        };
        let remedy = match blank {
            "a line end" => {
                "; remove it, for example with `printf %s`, because it would be part of the secret"
            }
            _ => "; remove it, because it would be part of the secret",
        };
        return Err(format!("{place} with {blank}{remedy}"));
    }
    check_placeholder(text)
}

/// Says whether the text is an example, or the name of a secret that another program should have put in its place. A key
/// in PEM and a key set may have such words in them.
pub(super) fn check_placeholder(text: &str) -> Result<(), String> {
    let text = text.trim_matches(is_blank);
    if is_document(text) {
        return Ok(());
    }
    let inside = |open: &str, close: &str| text.strip_prefix(open)?.strip_suffix(close);
    let is_around = |open: &str, close: &str| inside(open, close).is_some();
    let is_name = |open: &str, close: &str| inside(open, close).is_some_and(is_template_name);
    if has_variable(text) || is_around("$(", ")") {
        return Err("has `${...}` or `$(...)` in it, which no program has replaced; write the secret itself".to_owned());
    }
    if is_around("{{", "}}") || is_name("<", ">") || is_name("%", "%") {
        return Err(
            "is a template, which no program has filled in; write the secret itself".to_owned(),
        );
    }
    match PLACEHOLDERS.iter().find(|words| has_words(text, words)) {
        Some(words) => Err(format!(
            "is the text of an example (`{}`); write a random secret, for example of `openssl rand -base64 48`",
            words.concat()
        )),
        None => Ok(()),
    }
}

/// Whether a text is a key in PEM, or a key or a key set in JSON.
pub(super) fn is_document(text: &str) -> bool {
    text.contains("-----BEGIN ") || is_json_object(text)
}

/// Whether a text is a JSON object, such as a JSON Web Key.
pub(crate) fn is_json_object(text: &str) -> bool {
    text.starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Whether a text may be the name of an environment variable. It may be a secret that was written in place of the name.
pub(super) fn is_name(text: &str) -> bool {
    const LONG: usize = 32;
    let is_allowed = |char: char| char.is_ascii_alphanumeric() || "_-.".contains(char);
    let is_token = text.len() >= LONG && !text.contains('_');
    text.chars().all(is_allowed) && !is_token && !text.starts_with("sk_")
}

fn is_template_name(text: &str) -> bool {
    let is_allowed = |char: char| char.is_ascii_alphanumeric() || "_- ,.".contains(char);
    !text.is_empty() && text.chars().all(is_allowed)
}

/// Whether the text has both words next to each other, together or separated. `exchange-member` does not have the words
/// `change` and `me`.
fn has_words(text: &str, [first, second]: &[&str; 2]) -> bool {
    let both = format!("{first}{second}");
    let lower = text.to_ascii_lowercase();
    let words = lower.split(|char: char| !char.is_alphabetic());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    let mut pairs = words.windows(2);
    // Repeated, until the text is long enough.
    let mut together = words.iter().map(|word| word.replace(&both, ""));
    together.any(|rest| rest.is_empty()) || pairs.any(|pair| pair == [*first, *second])
}

/// Whether the text has the reference `${NAME}`, or is one without braces.
fn has_variable(text: &str) -> bool {
    let name = |text: &str| {
        text.chars()
            .take_while(|char| char.is_ascii_alphanumeric() || *char == '_')
            .count()
    };
    let is_name =
        |text: &str| name(text) > 0 && !text.starts_with(|char: char| char.is_ascii_digit());
    let in_braces = text.split("${").skip(1).any(|rest| {
        let after = &rest[name(rest)..];
        is_name(rest) && (after.starts_with('}') || after.starts_with(':') && after.contains('}'))
    });
    let is_whole = text.strip_prefix('$').is_some_and(|rest| {
        is_name(rest)
            && name(rest) == rest.len()
            && !rest.chars().any(|char| char.is_ascii_lowercase())
    });
    in_braces || is_whole
}

fn is_blank(char: char) -> bool {
    char.is_whitespace() || char.is_control() || matches!(char, '\u{feff}' | '\u{200b}')
}

/// Decodes a text. Line ends within it do not matter, because `openssl` and `base64` write them. Bits after the last byte do
/// not matter, because Node.js ignores them.
pub(super) fn decode(text: &str, encoding: SecretEncoding) -> Result<Vec<u8>, String> {
    let text: String = text
        .chars()
        .filter(|char| !matches!(char, '\r' | '\n'))
        .collect();
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let (decoded, name) = match encoding {
        SecretEncoding::Base64 => (
            GeneralPurpose::new(&STANDARD, config).decode(&text).ok(),
            "base64",
        ),
        SecretEncoding::Base64Url => (
            GeneralPurpose::new(&URL_SAFE, config).decode(&text).ok(),
            "base64url",
        ),
        SecretEncoding::Hex => (decode_hex(&text), "hex"),
        SecretEncoding::Raw => (Some(text.into_bytes()), "raw"),
    };
    decoded.ok_or_else(|| format!("is not {name}; write the encoding that it has as `secret_encoding`, or remove that key if the secret is text"))
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match pair {
        [high, low] => {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            u8::try_from(digit(high)? * 16 + digit(low)?).ok()
        }
        _ => None,
    };
    pairs.map(byte).collect()
}
