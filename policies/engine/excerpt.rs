//! Parts of texts that others wrote, for the log.

const MAX_CHARS: usize = 100;

/// Returns the start of a text, without control characters.
#[must_use]
pub fn excerpt(text: &str) -> String {
    text.chars()
        .take(MAX_CHARS)
        .flat_map(char::escape_debug)
        .collect()
}
