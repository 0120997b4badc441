//! The generated pages of the book: the reference of the config, from its JSON Schema, and the list of metrics, from their
//! declarations. `IMGWIRE_GATE_UPDATE_DOCS=1 cargo test --test api -- reference::` writes them again.

mod examples;
mod keys;
mod metrics;

use std::{env, fs, path::Path};

/// Ends the part of a page that people write.
const MARK: &str = "<!-- Generated from here on: IMGWIRE_GATE_UPDATE_DOCS=1 cargo test --test api -- reference:: -->\n";

/// Compares the generated part of a page with what it must be, or writes it.
fn check_page(page: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(page);
    let committed = fs::read_to_string(&path).unwrap();
    let (written, _) = committed.split_once(MARK).unwrap();
    let current = format!("{written}{MARK}\n{}\n", generated.trim());
    if env::var_os("IMGWIRE_GATE_UPDATE_DOCS").is_some() {
        fs::write(&path, &current).unwrap();
        return;
    }
    assert!(
        committed == current,
        "docs/{page} is not current: IMGWIRE_GATE_UPDATE_DOCS=1 cargo test --test api -- reference::"
    );
}

/// A row of a table.
fn row(cells: &[&str]) -> String {
    let cells = cells.iter().map(|cell| cell.replace('|', "\\|"));
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

#[test]
fn the_configuration_reference_is_current() {
    check_page("configuration.md", &keys::render());
}

#[test]
fn the_list_of_metrics_is_current() {
    check_page("metrics.md", &metrics::render());
}
