//! Words the errors of expressions: where they are, and what to write.

use crate::excerpt;

/// Functions to suggest.
pub(crate) const FUNCTIONS: [&str; 24] = [
    "all",
    "as_list",
    "bytes",
    "contains",
    "double",
    "duration",
    "endsWith",
    "exists",
    "exists_one",
    "filter",
    "has",
    "int",
    "map",
    "matches",
    "max",
    "min",
    "size",
    "split",
    "startsWith",
    "string",
    "timestamp",
    "type",
    "uint",
    "getHours",
];

/// Operators of other languages, with those of CEL.
const OPERATORS: [(&str, &str); 7] = [
    ("===", "`==`"),
    ("!==", "`!=`"),
    ("<>", "`!=`"),
    ("=", "`==` to compare"),
    ("&", "`&&`"),
    ("|", "`||`"),
    ("~", "`matches`"),
];

const WORDS: [(&str, &str); 8] = [
    ("and", "`&&`"),
    ("or", "`||`"),
    ("not", "`!`"),
    ("is", "`==`"),
    ("AND", "`&&`"),
    ("OR", "`||`"),
    ("NOT", "`!`"),
    ("IN", "`in`"),
];

/// Says what is wrong with an expression that the parser rejects near `position`, a line and a column.
pub(crate) fn syntax_error(text: &str, position: Option<(usize, usize)>) -> String {
    if text.trim().is_empty() {
        return "the expression is empty; write for example \"workspace.role == 'owner'\""
            .to_owned();
    }
    let (offset, message) = foreign_token(text).unwrap_or_else(|| {
        let (line, column) = position.unwrap_or((1, 1));
        let offset = offset_of(text, line, column);
        let rest = text[offset..].trim_start();
        let message = match rest.chars().next() {
            None => "the expression ends too early; write the missing part".to_owned(),
            Some(_) => {
                let word = rest.split_whitespace().next().unwrap_or_default();
                format!("unexpected `{}`; write an operator such as `==`, `&&` or `||` between two values", excerpt(word))
            }
        };
        (offset, message)
    });
    at(text, offset, &message)
}

/// The message with the position of the name that it shows first.
pub(crate) fn at_name(text: &str, message: String) -> String {
    let name = message.split('`').nth(1).unwrap_or_default();
    let name = name.trim_start_matches('.');
    let is_part = |char: char| char.is_alphanumeric() || char == '_';
    let found = text.match_indices(name).find(|(start, _)| {
        !name.is_empty()
            && !text[..*start].ends_with(is_part)
            && !text[start + name.len()..].starts_with(is_part)
    });
    match found {
        Some((start, _)) => at(text, start, &message),
        None => message,
    }
}

fn at(text: &str, offset: usize, message: &str) -> String {
    let before = &text[..offset];
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before[start..].chars().count() + 1;
    format!("line {line}, column {column} of the expression: {message}")
}

fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let mut lines = text.split_inclusive('\n');
    let before: usize = lines
        .by_ref()
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let chars = lines.next().unwrap_or_default().chars();
    before
        + chars
            .take(column.saturating_sub(1))
            .map(char::len_utf8)
            .sum::<usize>()
}

/// Finds an open quote or bracket, or an operator of another language, outside of strings.
fn foreign_token(text: &str) -> Option<(usize, String)> {
    let mut brackets: Vec<(usize, char)> = Vec::new();
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let start = text.len() - rest.len();
        if let Some(operator) = operator(text, start) {
            return Some((start, operator));
        }
        let mut length = char.len_utf8();
        match char {
            '\'' | '"' => match end_of_string(&rest[1..], char) {
                Some(end) => length = end + 2,
                None => {
                    return Some((
                        start,
                        format!("a quote is open; end the string with `{char}`"),
                    ));
                }
            },
            '\u{2018}' | '\u{2019}' | '\u{201c}' | '\u{201d}' => {
                return Some((start, "curly quotes are not quotes; write `'`".to_owned()));
            }
            '(' => brackets.push((start, ')')),
            '[' => brackets.push((start, ']')),
            '{' => brackets.push((start, '}')),
            ')' | ']' | '}' => match brackets.pop() {
                Some((_, expected)) if expected == char => {}
                _ => return Some((start, format!("`{char}` closes nothing; remove it"))),
            },
            _ if char.is_alphabetic() || char == '_' => {
                let is_word = |char: char| char.is_alphanumeric() || char == '_';
                length = rest.find(|char| !is_word(char)).unwrap_or(rest.len());
                let word = WORDS.iter().find(|(word, _)| *word == &rest[..length]);
                let is_field = text[..start].ends_with('.');
                if let Some((word, write)) = word.filter(|_| !is_field) {
                    return Some((start, format!("unexpected `{word}`; write {write}")));
                }
            }
            '=' | '!' | '<' | '>' | '&' | '|' if rest[1..].starts_with(['=', '&', '|']) => {
                length = 2
            }
            _ => {}
        }
        rest = &rest[length..];
    }
    let (start, close) = brackets.pop()?;
    Some((start, format!("a bracket is open; end it with `{close}`")))
}

/// The message about an operator of another language at `start`.
fn operator(text: &str, start: usize) -> Option<String> {
    const OWN: [&str; 6] = ["==", "!=", "<=", ">=", "&&", "||"];
    let rest = &text[start..];
    let is_own = OWN.iter().any(|own| rest.starts_with(own));
    let (found, write) = OPERATORS
        .iter()
        .find(|(found, _)| rest.starts_with(found))?;
    (found.len() > 2 || !is_own).then(|| format!("unexpected `{found}`; write {write}"))
}

fn end_of_string(rest: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    rest.char_indices().find_map(|(at, char)| {
        let ends = char == quote && !escaped;
        escaped = char == '\\' && !escaped;
        ends.then_some(at)
    })
}
