//! Errors in a config file, with their positions.

use std::ops::Range;

use policies::similar;

use super::{
    files::ReadFiles,
    places::position,
    schema_forms::Names,
    variables::{Replaced, conceal},
};

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
#[error("{}", .lines.join("\n"))]
pub struct Faults {
    pub(super) lines: Vec<String>,
    /// The files that were read.
    pub(super) files: ReadFiles,
    pub(super) is_temporary: bool,
}

impl Faults {
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The files that the config names, as far as it could be read.
    #[must_use]
    pub fn files(&self) -> &ReadFiles {
        &self.files
    }

    /// Whether the config can be used as soon as the files exist that it names.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.is_temporary
    }
}

pub(super) fn lines(
    file: &str,
    text: &str,
    mut faults: Vec<Fault>,
    replaced: &[Replaced],
) -> Vec<String> {
    faults.sort_by_key(|fault| fault.span.start);
    let lines = faults.into_iter().map(|fault| {
        let fault = in_expression(text, fault);
        let (line, column) = position(text, fault.span.start);
        let message = conceal(replaced, &fault.key, fault.message);
        match without_index(fault.key) {
            key if key.is_empty() => format!("{file}:{line}:{column}: {message}"),
            key => format!("{file}:{line}:{column}: {key}: {message}"),
        }
    });
    lines.collect()
}

/// Moves a fault that is at a line and a column of an expression to its place in the file.
fn in_expression(text: &str, mut fault: Fault) -> Fault {
    let parsed = fault.message.strip_prefix("line ").and_then(|rest| {
        let (line, rest) = rest.split_once(", column ")?;
        let (column, message) = rest.split_once(" of the expression: ")?;
        Some((
            line.parse::<usize>().ok()?,
            column.parse::<usize>().ok()?,
            message.to_owned(),
        ))
    });
    let Some((line, column, message)) = parsed else {
        return fault;
    };
    let written = text.get(fault.span.clone()).unwrap_or_default();
    let triple = ["\"\"\"", "'''"]
        .iter()
        .any(|quotes| written.starts_with(quotes));
    let quotes = if triple { 3 } else { 1 };
    let content = written.get(quotes..).unwrap_or_default();
    // A line break after the opening quotes does not belong to the text.
    let skipped = if triple {
        content.len()
            - content
                .trim_start_matches('\r')
                .strip_prefix('\n')
                .unwrap_or(content)
                .len()
    } else {
        0
    };
    let content = &content[skipped..];
    let mut lines = content.split_inclusive('\n');
    let before: usize = lines.by_ref().take(line - 1).map(str::len).sum();
    let inside = lines
        .next()
        .unwrap_or_default()
        .chars()
        .take(column.saturating_sub(1));
    let within = before + inside.map(char::len_utf8).sum::<usize>();
    // Escapes have another length in the file.
    if !content[..within].contains('\\') {
        let start = fault.span.start + quotes + skipped + within;
        fault.span = start..fault.span.end.max(start);
        fault.message = message;
    }
    fault
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

/// What other programs call a key or a kind.
const SYNONYMS: [(&str, &str); 21] = [
    ("port", "bind"),
    ("host", "bind"),
    ("listen", "bind"),
    ("address", "bind"),
    ("cors", "allowed_origins"),
    ("timeout", "request_timeout"),
    ("type", "kind"),
    ("iss", "issuer"),
    ("aud", "audience"),
    ("alg", "algorithms"),
    ("secret", "key"),
    ("max_age", "ttl"),
    ("expires", "ttl"),
    ("window", "period"),
    ("period", "window"),
    ("interval", "period"),
    ("max", "limit"),
    ("expression", "allow"),
    ("rule", "allow"),
    ("cel", "expression"),
    ("oidc", "jwt"),
];

/// Returns the one of the `known` names that was probably meant by an unknown one: a similar one, the plural, or a synonym.
pub(super) fn meant<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let plural = name.strip_suffix('y').map(|stem| format!("{stem}ies"));
    let is_plural = |known: &&&str| plural.as_deref() == Some(**known);
    let is_synonym = |known: &&&str| SYNONYMS.contains(&(name, **known));
    let exact = || {
        known
            .iter()
            .find(is_plural)
            .or(known.iter().find(is_synonym))
    };
    similar(name, known).or_else(|| exact().copied())
}

/// The sections that have this key, for example `[management] or [server]`.
pub(crate) fn homes(keys: &Names, key: &str) -> Option<String> {
    let sections = keys
        .iter()
        .filter(|(_, keys)| keys.iter().any(|known| known == key));
    let sections: Vec<_> = sections.map(|(name, _)| format!("[{name}]")).collect();
    (!sections.is_empty()).then(|| sections.join(" or "))
}

/// Says that `name` is unknown, and suggests the most similar of the `known` names, or lists all of them. `what` is the
/// kind of name, for example `policy kind`.
pub(crate) fn unknown<'a>(
    what: &str,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> String {
    let known: Vec<_> = known.into_iter().collect();
    if let Some(other) = meant(name, &known) {
        return format!("unknown {what} `{name}`; did you mean `{other}`?");
    }
    if known.is_empty() {
        return format!("unknown {what} `{name}`");
    }
    let plural = match what.strip_suffix("ty").or_else(|| what.strip_suffix("cy")) {
        Some(_) => format!("{}ies", &what[..what.len() - 1]),
        None => format!("{what}s"),
    };
    format!(
        "unknown {what} `{name}`; known {plural}: `{}`",
        known.join("`, `")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_similar_name_is_suggested_and_otherwise_all_are_listed() {
        let kinds = ["signed_in", "rate_limit", "quota"];
        for (name, expected) in [
            (
                "ratelimit",
                "unknown policy kind `ratelimit`; did you mean `rate_limit`?",
            ),
            (
                "qouta",
                "unknown policy kind `qouta`; did you mean `quota`?",
            ),
            (
                "saml",
                "unknown policy kind `saml`; known policy kinds: `signed_in`, `rate_limit`, `quota`",
            ),
        ] {
            assert_eq!(unknown("policy kind", name, kinds), expected);
        }
        let section = unknown("section", "policy", ["routes", "policies"]);
        assert_eq!(
            section,
            "unknown section `policy`; did you mean `policies`?"
        );
        let key = unknown("key", "port", ["bind", "workers"]);
        assert_eq!(key, "unknown key `port`; did you mean `bind`?");
        let known = unknown("identity", "nobody", ["app"]);
        assert_eq!(known, "unknown identity `nobody`; known identities: `app`");
        assert_eq!(unknown("store", "main", []), "unknown store `main`");
    }
}
