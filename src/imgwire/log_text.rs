//! Text of Imgwire that goes to the log.

use secrecy::{ExposeSecret as _, SecretString};

/// Stands for a key.
const REDACTED: &str = "***";

/// What Server API Keys start with.
const KEY_PREFIX: &str = "sk_";

/// Makes a text of Imgwire safe for the log: on one line, without control characters and without keys, and at most
/// `max_bytes` long. Returns `None` if nothing is left.
pub(super) fn log_text(text: String, key: &SecretString, max_bytes: usize) -> Option<String> {
    let is_clean = (1..=max_bytes).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && !text.contains(KEY_PREFIX)
        && !text.contains(key.expose_secret());
    if is_clean {
        // The id of each token, so it is kept without a copy.
        return Some(text);
    }
    let visible = text.chars().filter_map(|char| match char {
        char if char.is_whitespace() => Some(' '),
        char if is_invisible(char) => None,
        char => Some(char),
    });
    let visible: String = visible.collect();
    let redacted = redact_keys(&visible.replace(key.expose_secret(), REDACTED));
    let text = redacted.trim();
    let text = &text[..text.floor_char_boundary(max_bytes)];
    (!text.is_empty()).then(|| text.to_owned())
}

/// Whether a character is a control character, or one of those that change the direction or the joining of others.
fn is_invisible(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        || matches!(char, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Replaces words that look like a Server API Key, because a response may name another one than the gate's.
fn redact_keys(text: &str) -> String {
    let is_part = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-');
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(KEY_PREFIX) {
        let (before, found) = rest.split_at(at);
        redacted.push_str(before);
        let end = found.find(|char| !is_part(char)).unwrap_or(found.len());
        let (word, after) = found.split_at(end);
        // `task_id` contains the prefix, too.
        if before.ends_with(is_part) {
            redacted.push_str(word);
        } else {
            redacted.push_str(REDACTED);
        }
        rest = after;
    }
    redacted + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_for_the_log_is_short_and_has_neither_keys_nor_control_characters() {
        let key = SecretString::from("the-key");
        let clean = |text: &str, max| log_text(text.to_owned(), &key, max);
        for (text, expected) in [
            ("Invalid API key", Some("Invalid API key")),
            ("a\r\nb\tc", Some("a  b c")),
            ("\u{1b}[31mred\u{0}\u{7f}\u{202e}", Some("[31mred")),
            ("the\u{200b}-\u{8}key is unknown", Some("*** is unknown")),
            ("Bearer the-key", Some("Bearer ***")),
            ("key sk_live-9_x, sk_test", Some("key ***, ***")),
            ("task_id and disk_full", Some("task_id and disk_full")),
            ("", None),
            (" \n\u{0}", None),
        ] {
            assert_eq!(clean(text, 100).as_deref(), expected, "{text:?}");
        }
        assert_eq!(clean("äöü", 3).as_deref(), Some("ä"));
        assert_eq!(clean(&"x".repeat(10_000), 64), Some("x".repeat(64)));
    }
}
