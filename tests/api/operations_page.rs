//! docs/operations.md lists every field of the log.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn page() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join("docs/operations.md")).unwrap()
}

/// The names in backticks in the first column of the page's tables.
fn listed() -> BTreeSet<String> {
    let page = page();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| "));
    let cells = rows.filter_map(|row| row.split(" |").next());
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names.map(str::to_owned).collect()
}

#[test]
fn every_field_of_the_log_is_in_the_page() {
    let fields = fields_of_the_code();
    for known in ["request_id", "limit_key", "kid", "left_out", "upstream_ms"] {
        assert!(fields.contains(known), "{known}: {fields:?}");
    }
    let listed = listed();
    let missing: Vec<_> = fields.difference(&listed).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The names of the fields in all calls of the macros that write a line.
fn fields_of_the_code() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "policies"] {
        find_files(&root.join(folder), &mut files);
    }
    let mut fields = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        for call in [
            "line!",
            "tracing::$level!",
            "tracing::error!",
            "tracing::warn!",
            "tracing::info!",
            "tracing::debug!",
            "tracing::trace!",
        ] {
            for (at, _) in text.match_indices(call) {
                let has_values = call == "line!";
                for argument in arguments(&text[at + call.len()..]) {
                    fields.extend(field(&argument, has_values));
                }
            }
        }
    }
    fields
}

fn find_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("tests") && !path.ends_with("target") {
                find_files(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The arguments of a macro call, split at the commas between them.
fn arguments(call: &str) -> Vec<String> {
    let mut arguments = vec![String::new()];
    let (mut depth, mut is_text, mut is_escaped) = (0, false, false);
    for character in call.trim_start().chars() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_text => is_escaped = true,
            '"' => is_text = !is_text,
            _ if is_text => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 1 => {
                arguments.push(String::new());
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
        arguments.last_mut().unwrap().push(character);
    }
    // The parenthesis of the call.
    arguments[0] = arguments[0].get(1..).unwrap_or_default().to_owned();
    arguments
}

/// The name of the field that an argument records: `name`, `%name`, `?name` or `name = value`.
fn field(argument: &str, has_value: bool) -> Option<String> {
    let (name, value) = match argument.split_once('=') {
        Some((name, value)) if !value.starts_with('=') => (name, Some(value)),
        Some(_) => return None,
        None => (argument, None),
    };
    let name = name.trim().trim_start_matches(['%', '?']);
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit());
    (is_name && (value.is_some() || !has_value)).then(|| name.to_owned())
}
