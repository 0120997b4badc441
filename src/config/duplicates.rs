//! Words the fault of a key or a table that is in a TOML document twice.

use std::ops::Range;

use super::statements::{is_header, line_at, name_of, start_of_line};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Key,
    Table,
    /// A table of a list, such as `[[routes]]`.
    Element,
}

/// Names what is there twice, and the line of the first one.
pub(super) fn duplicate(text: &str, span: &Range<usize>) -> String {
    let start = start_of_line(text, span.start);
    let leaf = text.get(span.clone()).unwrap_or_default().trim();
    let line = line_at(text, start);
    // The key may be one of an inline table.
    if !is_header(line) && !name_of(line).ends_with(leaf) {
        return format!("the key `{leaf}` is there twice; remove one of them");
    }
    let mut table = String::new();
    let mut parts: Vec<(usize, String, Part)> = Vec::new();
    let lines = text[..start].lines().chain([line]);
    for (index, line) in lines.enumerate() {
        let (path, part) = part_of(line, &table);
        if part != Part::Key {
            table.clone_from(&path);
        }
        if part == Part::Element {
            let within = format!("{path}.");
            parts.retain(|(_, earlier, _)| !earlier.starts_with(&within));
        }
        parts.push((index + 1, path, part));
    }
    let Some((_, path, part)) = parts.pop() else {
        return format!("the key `{leaf}` is there twice; remove one of them");
    };
    let first = parts.iter().find(|(_, earlier, _)| *earlier == path);
    match (part, first) {
        (Part::Key, Some((first, _, Part::Key))) => {
            let key = name_of(line);
            format!("the key `{key}` is there twice, first in line {first}; remove one of them")
        }
        (Part::Table, Some((first, _, Part::Table))) => format!(
            "the table `{path}` is there twice, first in line {first}; write one table with the keys of both"
        ),
        (_, Some((first, _, Part::Element))) => {
            format!("`{path}` is a list of tables since line {first}; write [[{path}]]")
        }
        (_, Some((first, ..))) => {
            format!("`{path}` is there already, in line {first}; remove one of them")
        }
        (Part::Element, None) => {
            format!("`{path}` is a table with names before this line; write [{path}.NAME]")
        }
        (Part::Table, None) => {
            format!("the table `{path}` is there twice; write one table with the keys of both")
        }
        (Part::Key, None) => format!("the key `{leaf}` is there twice; remove one of them"),
    }
}

/// The path of a header, or of a key of the table at `table`.
fn part_of(line: &str, table: &str) -> (String, Part) {
    let name = name_of(line).replace([' ', '"'], "");
    if !is_header(line) {
        (format!("{table}.{name}"), Part::Key)
    } else if line.trim_start().starts_with("[[") {
        (name, Part::Element)
    } else {
        (name, Part::Table)
    }
}
