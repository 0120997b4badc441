//! Words the syntax errors of a TOML document: one for each mistake, with what to write.

use std::ops::Range;

use toml::de::DeTable;

use super::{
    duplicates::duplicate,
    fault::Fault,
    statements::{
        Statement, is_header, is_key_char, line_at, name_of, remove, start_of_line, statements,
    },
};

/// A text with more mistakes is probably no config.
const MAX_FAULTS: usize = 50;

const QUOTES: &str = "a string needs quotes; write key = \"value\"";

const ESCAPE: &str =
    "`\\` begins an escape; write `\\\\` for a backslash, or quote the string with `'`";

const NAME_OF_KEY: &str =
    "a key may contain only ASCII letters, digits, `-` and `_`; write another one";

const NAME_OF_TABLE: &str = "the name of a table may contain only ASCII letters, digits, `-`, `_` and `.`; write for \
                             example [server]";

/// What begins a comment in other languages.
const COMMENTS: [&str; 4] = ["//", "/*", ";", "-- "];

/// What the parser says, and what to write.
const REMEDIES: [(&str, &str); 32] = [
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
    (
        "may only go between digits",
        "`_` may only be between two digits of a number; remove it",
    ),
    (
        "redundant numeric sign",
        "a number has two signs; remove one of them",
    ),
    // Values that begin with a digit, such as `5s`.
    ("invalid integer number", QUOTES),
    ("invalid mantissa", QUOTES),
    ("invalid fraction", QUOTES),
    ("invalid float", QUOTES),
    ("invalid date", QUOTES),
    (
        "missing opening quote",
        "the string has no quote at its start; write key = \"value\"",
    ),
    (
        "key with no value",
        "the line has no `=`; write key = value",
    ),
    ("missing value", "nothing follows `=`; write key = value"),
    (
        "missing assignment",
        "the line has no `=`; write key = value",
    ),
    (
        "cannot be empty",
        "a name is missing; write key = value, or for example [server]",
    ),
    ("invalid unquoted key", NAME_OF_KEY),
    (
        "cannot extend value",
        "the key has a value already, so it cannot also be a table; remove one of them",
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
    (
        "invalid key-value pair",
        "the line does not begin with a key; write key = value",
    ),
    ("extra comma", "a `,` has no entry before it; remove it"),
    (
        "unexpected key or value",
        "more follows after the end; write each key and each table in a line of its own",
    ),
    ("missing escaped value", ESCAPE),
    ("unicode value digits", ESCAPE),
    (
        "max recursion depth",
        "lists or tables are nested too deep; write fewer levels",
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
            let is_open = || statement.open.is_some() && has_error(&rest[statement.range.clone()]);
            is_before && (span.start < statement.range.end || is_open())
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

fn has_error(statement: &str) -> bool {
    first_error(statement).is_some()
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
    if is_header(line) {
        return describe_header(line, message);
    }
    let line = line.trim_start();
    let after_key = line.trim_start_matches(is_key_char);
    let key = match &line[..line.len() - after_key.len()] {
        name if name.starts_with(|char: char| char.is_ascii_alphabetic()) => name,
        _ => "key",
    };
    // The value may be a secret, so messages do not show it.
    let value = line
        .split_once('=')
        .map_or("", |(_, value)| value.trim_start());
    let word = value.split('#').next().unwrap_or_default().trim_end();
    // Where the parser stopped.
    let rest = text.get(span.start..).unwrap_or_default();
    let rest = rest.lines().next().unwrap_or_default().trim_start();
    if let Some(found) = comment(line, value, rest) {
        return format!(
            "a comment begins with `#`; write it in place of `{}`",
            found.trim()
        );
    }
    if line.starts_with("- ") {
        return "TOML has no lists in lines with `-`; write key = [\"value\"]".to_owned();
    }
    if after_key.trim_start().starts_with(':') {
        return format!("TOML has `=` between key and value; write {key} = value");
    }
    if rest.starts_with(':') {
        return "TOML has `=` between key and value; write `=` in place of `:`".to_owned();
    }
    if value.starts_with('=') {
        return "`=` is there twice; remove one of them".to_owned();
    }
    let ends_here = |end| {
        let value = word.strip_suffix(end);
        value.is_some_and(|value| !has_error(&format!("x = {value}")))
    };
    if let Some(end) = [',', ';'].into_iter().find(|end| ends_here(*end))
        && !message.contains("comma")
    {
        return format!("the line ends with `{end}`; remove it");
    }
    if let Some(end) = rest.chars().next().filter(|char| "]})".contains(*char))
        && message.contains("unexpected key or value")
    {
        return format!("`{end}` closes nothing; remove it");
    }
    if line.contains('=') && word.is_empty() {
        return format!("nothing follows `=`; write {key} = value");
    }
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
    match REMEDIES.iter().find(|(start, _)| message.contains(start)) {
        Some((_, QUOTES)) => unquoted(key, word),
        Some((_, remedy)) => remedy.replacen("key = ", &format!("{key} = "), 1),
        None => format!("{message}; write each key as key = value, strings in quotes"),
    }
}

/// What begins a comment of another language: the line, what follows its value, or what the parser could not read.
fn comment(line: &str, value: &str, rest: &str) -> Option<&'static str> {
    let is_bare = !value.starts_with(['"', '\'', '[', '{']);
    let mut known = COMMENTS.into_iter();
    known.find(|comment| {
        let begins = line.starts_with(comment) || rest.len() > 1 && rest.starts_with(comment);
        begins || is_bare && value.contains(&format!(" {comment}"))
    })
}

fn unquoted(key: &str, value: &str) -> String {
    let is_variable = ["env.", "env(", "process.env", "os."]
        .iter()
        .any(|start| value.starts_with(start));
    match value.chars().next() {
        _ if is_variable => {
            format!("a secret from the environment is a table; write {key} = {{ env = \"NAME\" }}")
        }
        Some('(') => {
            "TOML has no `(`; write a list in `[` and `]`, and a number without".to_owned()
        }
        Some('[') => format!("a string needs quotes; write {key} = [\"value\"]"),
        Some('{') => {
            format!("a string needs quotes; write for example {key} = {{ env = \"NAME\" }}")
        }
        _ => QUOTES.replacen("key", key, 1),
    }
}

fn describe_header(line: &str, message: &str) -> String {
    let name = name_of(line).split(']').next().unwrap_or_default();
    let is_name = !name.is_empty() && name.chars().all(is_key_char);
    let header = match line.trim_start().starts_with("[[") {
        true => format!("[[{name}]]"),
        false => format!("[{name}]"),
    };
    if name.is_empty() {
        "a name is missing; write for example [server]".to_owned()
    } else if message.contains("unclosed") && is_name {
        format!("`]` is missing at the end; write {header}")
    } else if message.contains("unexpected key or value") {
        format!("more follows after the name of the table; write only {header} in this line")
    } else if is_name {
        format!("the header of the table is not closed as it is opened; write {header}")
    } else {
        NAME_OF_TABLE.to_owned()
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
