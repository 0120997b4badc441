//! Words the syntax errors of a TOML document: one for each mistake, with what to write.

use std::ops::Range;

use toml::de::DeTable;

use super::{
    fault::Fault,
    statements::{Statement, is_header, is_key_char, line_at, remove, start_of_line, statements},
};

/// A text with more mistakes is probably no config.
const MAX_FAULTS: usize = 50;

const QUOTES: &str = "a string needs quotes; write key = \"value\"";

/// What the parser says, and what to write.
const REMEDIES: [(&str, &str); 28] = [
    (
        "invalid basic string",
        "a quote is open; end the string with `\"` in the same line",
    ),
    (
        "invalid literal string",
        "a quote is open; end the string with `'` in the same line",
    ),
    (
        "invalid multi-line basic string",
        "a text in `\"\"\"` is open; end it with `\"\"\"`",
    ),
    (
        "invalid multi-line literal string",
        "a text in `'''` is open; end it with `'''`",
    ),
    ("string values must be quoted", QUOTES),
    (
        "leading zero",
        "a number begins with 0; leave it out, or write a string in quotes",
    ),
    // Values that begin with a digit, such as `5s`.
    ("invalid integer number", QUOTES),
    ("invalid mantissa", QUOTES),
    ("invalid fraction", QUOTES),
    ("invalid datetime", QUOTES),
    (
        "missing opening quote",
        "the string has no quote at its start; write key = \"value\"",
    ),
    ("key with no value", "the key has no `=`; write key = value"),
    ("missing value", "nothing follows `=`; write key = value"),
    (
        "missing assignment",
        "the key has no `=`; write key = value",
    ),
    (
        "cannot be empty",
        "a name is missing; write key = value, or for example [server]",
    ),
    (
        "invalid unquoted key",
        "a key may contain only letters, digits, `-` and `_`; write another one",
    ),
    (
        "cannot extend value",
        "the key has a value already, so it cannot also be a table; remove one of them",
    ),
    (
        "unclosed array table",
        "`]]` is missing; write for example [[routes]]",
    ),
    (
        "unclosed table",
        "`]` is missing; write for example [server]",
    ),
    ("missing table open", "`]` closes nothing; remove it"),
    ("missing array opening", "`]` closes nothing; remove it"),
    (
        "missing inline table opening",
        "`}` closes nothing; remove it",
    ),
    ("unclosed array", "a list is open; end it with `]`"),
    ("unclosed inline table", "a table is open; end it with `}`"),
    (
        "missing comma",
        "`,` is missing between two entries; write it",
    ),
    ("extra comma", "a `,` has no entry before it; remove it"),
    (
        "unexpected key or value",
        "more follows after the end; write each key and each table in a line of its own",
    ),
    (
        "missing escaped value",
        "`\\` begins an escape; write `\\\\` for a backslash, or quote the string with `'`",
    ),
];

/// Returns a fault for each mistake. The parser loses its place after some of them, so this parses the text again without
/// the statement of the first mistake, until no mistake is left.
pub(super) fn faults(text: &str) -> Vec<Fault> {
    let mut rest = text.to_owned();
    let mut faults = Vec::new();
    while let Some((span, message)) = first_error(&rest).filter(|_| faults.len() < MAX_FAULTS) {
        if let Some(other) = other_format(text) {
            return vec![other];
        }
        let statements = statements(&rest);
        let holds = |statement: &&Statement| {
            let is_before = statement.range.start <= span.start;
            is_before && (statement.open.is_some() || span.start < statement.range.end)
        };
        let Some(statement) = statements.iter().find(holds).or(statements.last()) else {
            break;
        };
        let (start, message) = match statement.open {
            Some((start, end))
                if message.contains("unclosed")
                    || start_of_line(text, start) != start_of_line(text, span.start) =>
            {
                (start, unclosed(end))
            }
            _ if message.contains("duplicate key") => (span.start, duplicate(text, &span)),
            _ => (span.start, describe(text, &span, &message)),
        };
        faults.push(Fault {
            span: start..span.end.max(start),
            key: String::new(),
            message,
        });
        let removed = remove(&rest, statement.range.clone());
        if removed == rest {
            break;
        }
        rest = removed;
    }
    faults
}

fn first_error(text: &str) -> Option<(Range<usize>, String)> {
    let (_, errors) = DeTable::parse_recoverable(text);
    let errors = errors
        .iter()
        .map(|error| (error.span().unwrap_or(0..0), error.message().to_owned()));
    errors.min_by_key(|(span, _)| span.start)
}

fn unclosed(end: &str) -> String {
    match end {
        "]" => "a list is open; end it with `]`".to_owned(),
        "}" => "a table is open; end it with `}`".to_owned(),
        quotes => format!("a text in `{quotes}` is open; end it with `{quotes}`"),
    }
}

fn describe(text: &str, span: &Range<usize>, message: &str) -> String {
    let line = line_at(text, span.start).trim_start_matches('\u{feff}');
    if line.contains([
        '\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}', '\u{201e}', '\u{ab}', '\u{bb}',
    ]) {
        return "curly quotes are not quotes in TOML; write \" instead".to_owned();
    }
    if line.contains(['\u{a0}', '\u{200b}', '\u{feff}']) {
        return "the line has an invisible character; write it again by hand".to_owned();
    }
    let line = line.trim_start();
    let after_key = line.trim_start_matches(is_key_char);
    let key = match &line[..line.len() - after_key.len()] {
        "" => "key",
        key => key,
    };
    if after_key.trim_start().starts_with(':') {
        return format!("TOML has `=` between key and value; write {key} = value");
    }
    // The value may be a secret, so messages do not show it.
    let value = line
        .split_once('=')
        .map_or("", |(_, value)| value.trim_start());
    if value.starts_with('=') {
        return "`=` is there twice; remove one of them".to_owned();
    }
    let word = value.split('#').next().unwrap_or_default().trim_end();
    match word.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => {
            return format!("`{word}` is not a value in TOML; write {key} = true");
        }
        "false" | "no" | "off" => {
            return format!("`{word}` is not a value in TOML; write {key} = false");
        }
        "null" | "none" | "nil" | "~" => return format!("TOML has no `{word}`; remove the key"),
        _ => {}
    }
    for quote in ['"', '\''] {
        let triple = quote.to_string().repeat(3);
        if value.starts_with(quote)
            && !value.starts_with(&triple)
            && value.matches(quote).count() == 1
        {
            return format!("a quote is open; end the string with `{quote}` in the same line");
        }
    }
    if message.contains("unclosed table") && line.contains(']') {
        return "the name of a table may contain only letters, digits, `-`, `_` and `.`; write for example [server]"
            .to_owned();
    }
    match REMEDIES.iter().find(|(start, _)| message.contains(start)) {
        Some((_, remedy)) => remedy.replacen("key = ", &format!("{key} = "), 1),
        None => format!("{message}; write each key as key = value, strings in quotes"),
    }
}

/// Names what is there twice, and the line of the first one.
fn duplicate(text: &str, span: &Range<usize>) -> String {
    let start = start_of_line(text, span.start);
    let line = line_at(text, start);
    let is_table = is_header(line);
    let leaf = text.get(span.clone()).unwrap_or_default().trim();
    // The key may be one of an inline table.
    let name = match name_of(line) {
        name if is_table || name.ends_with(leaf) => name,
        _ => leaf,
    };
    let mut first = None;
    for (index, earlier) in text[..start].lines().enumerate() {
        let is_header = is_header(earlier);
        if is_header && !is_table {
            first = None;
        } else if first.is_none() && is_header == is_table && name_of(earlier) == name {
            first = Some(index + 1);
        }
    }
    let place = first.map_or_else(String::new, |line| format!(", first in line {line}"));
    match is_table {
        true => format!(
            "the table `{name}` is there twice{place}; write one table with the keys of both"
        ),
        false => format!("the key `{name}` is there twice{place}; remove one of them"),
    }
}

/// The name in the header of a table, or the key of a value.
fn name_of(line: &str) -> &str {
    if is_header(line) {
        let header = line.split('#').next().unwrap_or(line);
        header.trim().trim_matches(['[', ']']).trim()
    } else {
        line.split('=').next().unwrap_or(line).trim()
    }
}

/// A file of another format, which would have an error in most lines.
fn other_format(text: &str) -> Option<Fault> {
    let mut offset = 0;
    let first = text.split_inclusive('\n').find_map(|line| {
        let start = offset;
        offset += line.len();
        let trimmed = line.trim_matches(|char: char| char.is_whitespace() || char == '\u{feff}');
        (!trimmed.is_empty() && !trimmed.starts_with('#')).then_some((start, trimmed))
    });
    let (start, line) = first?;
    let is_key = |name: &str| {
        let name = name.trim_matches('"');
        !name.is_empty()
            && name
                .chars()
                .all(|char| char.is_alphanumeric() || "-_.".contains(char))
    };
    let yaml = line.split_once(':').filter(|(name, value)| {
        is_key(name) && (value.is_empty() || value.starts_with(' ')) && !name.contains('=')
    });
    let message = if line.starts_with('{') {
        "this is JSON, and the config is TOML; write a table as [server], and in it key = value"
    } else if line == "---" || line.starts_with("%YAML") || line.starts_with("- ") || yaml.is_some()
    {
        "this is YAML, and the config is TOML; write a table as [server], and in it key = value"
    } else if line.starts_with('<') {
        "this is XML or HTML, and the config is TOML; write a table as [server], and in it key = value"
    } else {
        return None;
    };
    let (key, message) = (String::new(), message.to_owned());
    Some(Fault {
        span: start..start,
        key,
        message,
    })
}
