//! The table of `docs/metrics.md`.

use std::fs;

use super::row;
use crate::{book::root, helpers::Metrics};

/// A metric, as its declaration says.
struct Declared {
    name: String,
    kind: &'static str,
    labels: Vec<String>,
    help: String,
}

pub(super) fn render() -> String {
    let source = fs::read_to_string(root().join("src/telemetry/metrics/mod.rs")).unwrap();
    let (_, rest) = source.split_once("\nmetrics! {\n").unwrap();
    let (declarations, _) = rest.split_once("\n}\n").unwrap();
    let metrics = parse(declarations);
    let names: Vec<_> = metrics.iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names, Metrics::NAMES);
    let mut page = "| metric | |\n|---|---|\n".to_owned();
    for Declared {
        name,
        kind,
        labels,
        help,
    } in &metrics
    {
        let suffix = match *kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        // Two columns, because the book is narrow.
        let labels = match &labels[..] {
            [] => String::new(),
            labels => format!(" by {}", labels.join(", ")),
        };
        page += &row(&[
            &format!("`{name}{suffix}`"),
            &format!("{help}. *{kind}{labels}*"),
        ]);
    }
    page
}

fn parse(declarations: &str) -> Vec<Declared> {
    let mut metrics = Vec::new();
    let (mut prefix, mut help) = ("", Vec::new());
    let mut statement = String::new();
    for line in declarations.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            help.push(text);
        } else if let Some(quoted) = line.strip_suffix("\" {") {
            prefix = quoted.trim_start_matches('"');
        } else if line.starts_with("pub struct") || line == "info {" || line.starts_with("// ") {
            (prefix, help) = (if line == "info {" { "" } else { prefix }, Vec::new());
        } else if line != "}" || !statement.is_empty() {
            statement.push_str(line);
            statement.push(' ');
            if line.ends_with(';') {
                metrics.push(declared(prefix, &statement, &help.join(" ")));
                (statement, help) = (String::new(), Vec::new());
            }
        }
    }
    metrics
}

/// Reads `name: Kind { label: Type, ... } = ...;` or `name: [("label", ...), ...];`.
fn declared(prefix: &str, statement: &str, help: &str) -> Declared {
    let (name, rest) = statement.split_once(": ").unwrap();
    let (kind, labels) = if rest.starts_with('[') {
        let pairs = rest.split(" (\"").skip(1);
        (
            "info",
            pairs.filter_map(|pair| pair.split('"').next()).collect(),
        )
    } else {
        let kind = match rest
            .split(|char: char| !char.is_alphanumeric())
            .next()
            .unwrap()
        {
            "Counter" => "counter",
            "Gauge" | "OptionalGauge" => "gauge",
            "Histogram" => "histogram",
            other => panic!("unknown type of metric: {other}"),
        };
        let (declared, _) = rest.split_once(" = ").unwrap_or((rest, ""));
        let labels = declared.split_once('{').map_or("", |(_, labels)| labels);
        let labels = labels
            .split(", ")
            .filter_map(|label| label.trim().split_once(':'));
        (
            kind,
            labels.map(|(label, _)| label.trim()).collect::<Vec<_>>(),
        )
    };
    Declared {
        name: format!("{prefix}{}", name.trim()),
        kind,
        labels: labels
            .into_iter()
            .map(|label| format!("`{label}`"))
            .collect(),
        help: help.to_owned(),
    }
}
