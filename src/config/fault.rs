//! Errors in a config file, with their positions.

use std::ops::Range;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// A range of bytes in the file.
    pub(crate) span: Range<usize>,
    /// The path of the key, for example `policies.member.roles[0]`.
    pub(crate) key: String,
    /// Never shows a secret.
    pub(crate) message: String,
}

/// All errors in a config file. `Display` writes one line for each, for example
/// `gate.toml:12:9: policies.daily.limit: is required`.
#[derive(Debug, Default, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Faults(Vec<String>);

impl Faults {
    pub(crate) fn new(file: &str, text: &str, mut faults: Vec<Fault>) -> Self {
        faults.sort_by_key(|fault| fault.span.start);
        let lines = faults.into_iter().map(|fault| {
            let (line, column) = position(text, fault.span.start);
            let message = fault.message;
            match without_index(fault.key) {
                key if key.is_empty() => format!("{file}:{line}:{column}: {message}"),
                key => format!("{file}:{line}:{column}: {key}: {message}"),
            }
        });
        Self(lines.collect())
    }

    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

/// Omits the index of a list element, which line and column already show.
fn without_index(mut path: String) -> String {
    if path.ends_with(']')
        && path.contains('.')
        && let Some(list) = path.rfind('[')
    {
        path.truncate(list);
    }
    path
}

/// The line and the column of a byte, both counted from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}
