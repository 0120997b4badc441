//! The statements of a TOML document that may have mistakes.

use std::ops::Range;

/// A key with its value, the header of a table, or a line without either.
pub(super) struct Statement {
    pub(super) range: Range<usize>,
    /// What begins in the statement and has no end: where it begins, and what would end it.
    pub(super) open: Option<(usize, &'static str)>,
}

pub(super) fn statements(text: &str) -> Vec<Statement> {
    let mut statements: Vec<Statement> = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let statement = statement(text, start);
        start = statement.range.end;
        statements.push(statement);
    }
    statements
}

fn statement(text: &str, start: usize) -> Statement {
    if is_header(&text[start..]) {
        let range = start..end_of_line(text, start);
        return Statement { range, open: None };
    }
    let mut open: Vec<(usize, &'static str)> = Vec::new();
    let mut last = ' ';
    let mut at = start;
    while let Some(char) = text[at..].chars().next() {
        let rest = &text[at..];
        let mut length = char.len_utf8();
        match char {
            '\n' if open
                .last()
                .is_none_or(|top| is_over(text, *top, last, &rest[1..])) =>
            {
                let range = start..at + 1;
                return Statement {
                    range,
                    open: open.pop(),
                };
            }
            '#' => length = rest.find('\n').unwrap_or(rest.len()),
            '"' | '\'' => {
                let triple = if char == '"' { "\"\"\"" } else { "'''" };
                match end_of_string(rest, triple) {
                    Some(end) => length = end,
                    None => {
                        let range = start..text.len();
                        let open = Some((at, triple));
                        return Statement { range, open };
                    }
                }
            }
            '[' => open.push((at, "]")),
            '{' => open.push((at, "}")),
            ']' | '}' => drop(open.pop()),
            _ => {}
        }
        if !char.is_whitespace() && char != '#' {
            last = char;
        }
        at += length;
    }
    let range = start..at;
    Statement {
        range,
        open: open.pop(),
    }
}

/// Whether a list or an inline table should have ended before `next`, the line that follows. `last` is the last character
/// before it.
fn is_over(text: &str, (start, end): (usize, &str), last: char, next: &str) -> bool {
    let next = next.lines().next().unwrap_or_default();
    let after_key = next.trim_start().trim_start_matches(is_key_char);
    let is_key =
        after_key.len() < next.trim_start().len() && after_key.trim_start().starts_with('=');
    let line = &text[start + 1..end_of_line(text, start)];
    let is_spread = line.trim_start().is_empty() || line.trim_start().starts_with('#');
    let needs_key = end == "}" && (is_spread || last == ',');
    let inner = next.trim().trim_start_matches('[');
    let is_table = is_header(next) && inner.starts_with(|char: char| char.is_ascii_alphabetic());
    is_table || is_key && !needs_key
}

/// The end of the string at the start of `text`: of one line, at the latest with the line; or between `triple` quotes.
fn end_of_string(text: &str, triple: &str) -> Option<usize> {
    let is_long = text.starts_with(triple);
    let quotes = &triple[..if is_long { 3 } else { 1 }];
    let mut at = quotes.len();
    while let Some(char) = text[at..].chars().next() {
        if text[at..].starts_with(quotes) {
            return Some(at + quotes.len());
        }
        if char == '\n' && !is_long {
            return Some(at);
        }
        at += char.len_utf8();
        if char == '\\' && quotes.starts_with('"') {
            let escaped = text[at..].chars().next().filter(|char| *char != '\n');
            at += escaped.map_or(0, char::len_utf8);
        }
    }
    (!is_long).then_some(at)
}

/// The text without a statement, with all others in their places. A table still has a header, one that several tables may
/// have, so that its keys are in no other table. If that header has no place in the line, the keys are removed, too.
pub(super) fn remove(text: &str, mut range: Range<usize>) -> String {
    const SHORTEST: usize = "[[-]]".len();
    let is_header = is_header(&text[range.clone()]);
    let length = text[range.clone()].trim_end().len();
    if is_header && length < SHORTEST {
        let mut end = range.end;
        while end < text.len() && !self::is_header(&text[end..]) {
            end = end_of_line(text, end);
        }
        range.end = end;
    }
    let removed = &text[range.clone()];
    let mut blank: String = removed
        .bytes()
        .map(|byte| if byte == b'\n' { '\n' } else { ' ' })
        .collect();
    if is_header && length >= SHORTEST {
        let header = format!("[[{}]]", "-".repeat(length - 4));
        blank.replace_range(..length, &header);
    }
    let mut text = text.to_owned();
    text.replace_range(range, &blank);
    text
}

pub(super) fn is_header(line: &str) -> bool {
    let line = line.trim_start_matches('\u{feff}');
    line.trim_start_matches([' ', '\t']).starts_with('[')
}

/// The name in the header of a table, or the key of a value.
pub(super) fn name_of(line: &str) -> &str {
    if is_header(line) {
        let header = line.split('#').next().unwrap_or(line);
        header.trim().trim_matches(['[', ']', '\u{feff}']).trim()
    } else {
        line.split('=').next().unwrap_or(line).trim()
    }
}

pub(super) fn is_key_char(char: char) -> bool {
    char.is_ascii_alphanumeric() || "-_.".contains(char)
}

pub(super) fn line_at(text: &str, offset: usize) -> &str {
    let start = start_of_line(text, offset);
    text[start..].lines().next().unwrap_or_default()
}

pub(super) fn start_of_line(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    before.rfind('\n').map_or(0, |newline| newline + 1)
}

/// Where the next line begins.
fn end_of_line(text: &str, offset: usize) -> usize {
    let end = text[offset..].find('\n');
    end.map_or(text.len(), |end| offset + end + 1)
}
