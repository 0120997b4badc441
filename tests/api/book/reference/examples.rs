//! An example of each key, from the configs in the repository, which other tests load.

use std::{fs, path::Path};

use toml::{Table, Value};

use crate::book::{markdown_files, root};

/// The configs in the order in which they are searched.
pub(super) fn configs() -> Vec<Table> {
    let mut texts = vec![uncommented("config/production.example.toml")];
    for name in ["config/default.toml", "config/moderation.example.toml"] {
        texts.push(fs::read_to_string(root().join(name)).unwrap());
    }
    let mut pages = markdown_files(Path::new("docs"));
    pages.push("README.md".into());
    for page in pages {
        texts.extend(crate::real_parts::blocks(page.to_str().unwrap(), "toml"));
    }
    let is_config = |text: &String| !text.contains("[[cases]]");
    let texts = texts.into_iter().filter(is_config);
    texts
        .map(|text| {
            text.parse()
                .unwrap_or_else(|error| panic!("{text}\n{error}"))
        })
        .collect()
}

/// The production example, with the keys that it shows in comments.
fn uncommented(name: &str) -> String {
    let text = fs::read_to_string(root().join(name)).unwrap();
    let lines = text.lines().map(|line| match line.strip_prefix("# ") {
        Some(key) if key.split_once(" = ").is_some_and(|(key, _)| is_key(key)) => key,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn is_key(text: &str) -> bool {
    text.chars()
        .all(|char| char.is_ascii_lowercase() || char == '_')
}

/// The tables of the configs that a section consists of: itself, or each of its named tables or list entries.
pub(super) fn tables<'a>(configs: &'a [Table], section: &str) -> Vec<&'a Table> {
    let mut found = Vec::new();
    for value in configs.iter().filter_map(|config| config.get(section)) {
        match value {
            Value::Array(entries) => found.extend(entries.iter().filter_map(Value::as_table)),
            Value::Table(table) => {
                found.push(table);
                found.extend(table.values().filter_map(Value::as_table));
            }
            _ => {}
        }
    }
    found
}

/// The first value of a key, other than an empty list, in these tables or, for a key of an inner table, anywhere below `parent`.
pub(super) fn value(tables: &[&Table], parent: Option<&str>, key: &str) -> Option<String> {
    let is_empty = |value: &&Value| value.as_array().is_some_and(Vec::is_empty);
    let found = tables.iter().find_map(|table| {
        let value = match parent {
            None => table.get(key),
            Some(parent) => below(table.get(parent)?, key),
        };
        value.filter(|value| !is_empty(value))
    });
    found.map(|value| format!("{key} = {value}"))
}

fn below<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    let table = value.as_table()?;
    let inner = || table.values().find_map(|value| below(value, key));
    table.get(key).or_else(inner)
}
