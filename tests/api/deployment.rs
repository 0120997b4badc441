//! The files of `deploy` for Prometheus and Grafana.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use crate::{
    helpers::{Metrics, TestApp, Token},
    real_parts::are_here,
};

pub(crate) fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(file)
}

#[track_caller]
pub(crate) fn passes(command: &mut Command) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let output = [stdout, stderr].concat();
    assert!(status.success(), "{}", String::from_utf8_lossy(&output));
}

#[test]
fn prometheus_accepts_the_alerts_and_they_pass_their_tests() {
    if are_here(&["promtool"]) {
        passes(
            Command::new("promtool")
                .args(["check", "rules"])
                .arg(deploy("alerts.yaml")),
        );
        passes(
            Command::new("promtool")
                .args(["test", "rules"])
                .arg(deploy("alerts.test.yaml")),
        );
    }
}

#[test]
fn every_alert_has_a_section_in_the_runbook() {
    let alerts = fs::read_to_string(deploy("alerts.yaml")).unwrap();
    let runbook = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbook.md");
    let runbook = fs::read_to_string(runbook).unwrap();
    let alerts: BTreeSet<_> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    let pages: BTreeSet<_> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    assert_eq!(alerts, pages);
}

/// The gate's metrics that a text names, without the suffixes of their types.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    let prefixes = [
        "imgwire_gate_",
        "http_server_request_",
        "http_client_request_",
        "db_client_",
    ];
    let is_name = |word: &&str| prefixes.iter().any(|prefix| word.starts_with(prefix));
    let names = words.filter(is_name);
    let suffixes = ["_total", "_bucket", "_count", "_info"];
    names
        .map(|name| {
            let plain = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
            plain.unwrap_or(name).to_owned()
        })
        .collect()
}

#[actix_web::test]
async fn every_exposed_metric_has_a_declared_name() {
    let app = TestApp::start().await;
    app.ask_as(&Token::of("user_1")).await.assert_token();
    let text = app.manage("/metrics").await.text;
    let exposed: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    assert!(exposed.len() > 10, "{text}");
    for name in exposed {
        assert!(Metrics::NAMES.contains(&name), "{name}");
    }
}

#[test]
fn alerts_and_dashboard_use_existing_metrics_and_the_dashboard_shows_all() {
    let there_are: BTreeSet<_> = Metrics::NAMES.iter().map(ToString::to_string).collect();
    let alerts = fs::read_to_string(deploy("alerts.yaml")).unwrap();
    assert!(named(&alerts).is_subset(&there_are), "{:?}", named(&alerts));
    let dashboard = fs::read_to_string(deploy("dashboard.json")).unwrap();
    assert_eq!(named(&dashboard), there_are);
}

#[test]
fn dashboard_panels_do_not_overlap_and_their_queries_are_valid() {
    let dashboard = fs::read_to_string(deploy("dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    assert_eq!(dashboard["uid"], "imgwire-gate");
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()));
        let place = &panel["gridPos"];
        let number = |key: &str| place[key].as_u64().unwrap();
        assert!(number("x") + number("w") <= 24);
        for x in number("x")..number("x") + number("w") {
            for y in number("y")..number("y") + number("h") {
                assert!(taken.insert((x, y)), "{}", panel["title"]);
            }
        }
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let query = query
                .replace("$__rate_interval", "5m")
                .replace("$instance", ".*");
            rules.push_str(&format!(
                "      - record: dashboard:{}\n        expr: >-\n          {query}\n",
                rules.len()
            ));
        }
    }
    if are_here(&["promtool"]) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rules.yaml");
        fs::write(&file, rules).unwrap();
        passes(Command::new("promtool").args(["check", "rules"]).arg(file));
    }
}
