//! Words the syntax errors of a TOML document: one for each mistake, with what to write.

use std::ops::Range;

use toml::de::Error;

use super::{fault::Fault, places::position};

/// What the parser says, and what to write.
const REMEDIES: [(&str, &str); 14] = [
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
    (
        "string values must be quoted",
        "a string needs quotes; write key = \"value\"",
    ),
    ("key with no value", "a key without `=`; write key = value"),
    ("missing value", "nothing follows `=`; write key = value"),
    ("missing assignment", "a key without `=`; write key = value"),
    (
        "unclosed table",
        "`]` is missing; write for example [server]",
    ),
    ("unclosed array", "a list is open; end it with `]`"),
    ("unclosed inline table", "a table is open; end it with `}`"),
    (
        "missing comma",
        "`,` is missing between two entries; write it",
    ),
    (
        "missing escaped value",
        "`\\` begins an escape; write `\\\\` for a backslash, or quote the string with `'`",
    ),
    (
        "leading zero",
        "a number begins with 0; leave it out, or write a string in quotes",
    ),
];

/// Returns a fault for each line with an error.
pub(super) fn faults(text: &str, errors: &[Error]) -> Vec<Fault> {
    if errors.is_empty() {
        return Vec::new();
    }
    if let Some(other) = other_format(text) {
        return vec![other];
    }
    let mut faults: Vec<(usize, Fault)> = Vec::new();
    // The keys of a table that is there twice are no faults of their own.
    let mut end_of_duplicate = 0;
    let mut errors: Vec<_> = errors.iter().collect();
    errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let (line, _) = position(text, span.start);
        if span.start < end_of_duplicate || faults.iter().any(|(other, _)| *other == line) {
            continue;
        }
        // An open table takes in the lines that follow it.
        if error.message().contains("inline table element") {
            let (key, message) = (
                String::new(),
                "a table before this line is open; end it with `}`".to_owned(),
            );
            faults.push((line, Fault { span, key, message }));
            break;
        }
        let is_duplicate = error.message().contains("duplicate key");
        let message = if is_duplicate {
            let line_start = start_of_line(text, span.start);
            if text[line_start..].trim_start().starts_with('[') {
                end_of_duplicate = next_header(text, span.end);
            }
            duplicate(text, &span)
        } else {
            describe(text, &span, error.message())
        };
        let key = String::new();
        faults.push((line, Fault { span, key, message }));
    }
    faults.into_iter().map(|(_, fault)| fault).collect()
}

fn describe(text: &str, span: &Range<usize>, message: &str) -> String {
    let start = start_of_line(text, span.start);
    let line = text[start..].lines().next().unwrap_or_default();
    if line.contains([
        '\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}', '\u{201e}', '\u{ab}', '\u{bb}',
    ]) {
        return "curly quotes are not quotes in TOML; write \" instead".to_owned();
    }
    if line.contains(['\u{a0}', '\u{200b}', '\u{feff}']) {
        return "the line has an invisible character; write it again by hand".to_owned();
    }
    let value = line
        .split_once('=')
        .map_or("", |(_, value)| value.trim_start());
    if let Some(second) = value.strip_prefix('=') {
        return format!("`=` stands twice; write key = {}", second.trim());
    }
    if !line.contains('=') && line.contains(':') && !line.trim_start().starts_with('[') {
        return "TOML has `=` between key and value; write key = value".to_owned();
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
    match REMEDIES.iter().find(|(start, _)| message.contains(start)) {
        Some((_, remedy)) => (*remedy).to_owned(),
        None => format!("{message}; write each key as key = value, strings in quotes"),
    }
}

/// Names what is there twice, and the line of the first one.
fn duplicate(text: &str, span: &Range<usize>) -> String {
    let start = start_of_line(text, span.start);
    let line = text[start..].lines().next().unwrap_or_default().trim();
    let before = text[..start].lines().enumerate();
    if line.starts_with('[') {
        let name = line
            .split('#')
            .next()
            .unwrap_or(line)
            .trim()
            .trim_matches(['[', ']'])
            .trim();
        let bare = |line: &str| {
            line.split('#')
                .next()
                .unwrap_or(line)
                .trim()
                .trim_matches(['[', ']'])
                .trim()
                .to_owned()
        };
        let first = before
            .clone()
            .find(|(_, other)| other.trim_start().starts_with('[') && bare(other) == name);
        return match first {
            Some((first, _)) => format!(
                "the table `{name}` is there twice, first in line {}; write one table with the keys of both",
                first + 1
            ),
            None => {
                format!("the table `{name}` is there twice; write one table with the keys of both")
            }
        };
    }
    let key = text.get(span.clone()).unwrap_or_default().trim();
    let table = before
        .clone()
        .filter(|(_, line)| line.trim_start().starts_with('['))
        .last();
    let first = before.filter(|(index, line)| {
        let name = line.split('=').next().unwrap_or(line).trim();
        table.is_none_or(|(table, _)| *index > table) && name == key
    });
    match first.map(|(index, _)| index + 1).next() {
        Some(first) => {
            format!("the key `{key}` is there twice, first in line {first}; remove one of them")
        }
        None => format!("the key `{key}` is there twice; remove one of them"),
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

fn start_of_line(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    before.rfind('\n').map_or(0, |newline| newline + 1)
}

/// Where the next table begins.
fn next_header(text: &str, offset: usize) -> usize {
    let rest = text.get(offset..).unwrap_or_default();
    let next = rest.match_indices('\n').find(|(at, _)| {
        rest[at + 1..]
            .trim_start_matches([' ', '\t'])
            .starts_with('[')
    });
    next.map_or(text.len(), |(at, _)| offset + at + 1)
}
