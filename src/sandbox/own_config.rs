//! Puts the emulator in Imgwire's place in a config file of the user's own.

use toml::de::{DeTable, DeValue};

use crate::config::document::Reader;

/// The environment variable that replaces the source of `imgwire.api_key`.
pub(crate) const API_KEY_VARIABLE: &str = "IMGWIRE_GATE_SANDBOX_API_KEY";

/// Replaces the source of `imgwire.api_key`, so that it need not exist. No line moves, so that positions in errors stay
/// right.
pub(crate) fn with_api_key(text: &str) -> String {
    let document = Reader::default().parse(text);
    let source = document
        .get("imgwire")
        .and_then(|imgwire| imgwire.get_ref().get("api_key"))
        .and_then(|source| source.get_ref().as_table());
    let mut replaced = text.to_owned();
    if let Some((key, value)) = source.and_then(only_string) {
        // The value stands behind its key.
        replaced.replace_range(value, &format!("{API_KEY_VARIABLE:?}"));
        replaced.replace_range(key, "env");
    }
    replaced
}

type Range = std::ops::Range<usize>;

/// The positions of the key and of the value, if the table has one entry and it is a string.
fn only_string(table: &DeTable<'_>) -> Option<(Range, Range)> {
    let mut entries = table.iter();
    match (entries.next(), entries.next()) {
        (Some((key, value)), None) if matches!(value.get_ref(), DeValue::String(_)) => {
            Some((key.span(), value.span()))
        }
        _ => None,
    }
}
