//! The commands of the program: health, check, schema, sandbox, explain and test.

use std::{
    fs::{self},
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    helpers::{Emulator, Gate, eventually},
    process::{GateProcess, PROGRAM, config_with_quota, program, run, text, write_config},
};

#[actix_web::test]
async fn health_reports_whether_the_gate_is_ready() {
    let imgwire = Emulator::start().unwrap();
    let (folder, config) = config_with_quota(&imgwire, 3);
    let gate = GateProcess::start(&config, &[], "info").await;
    let port = gate.management().rsplit(':').next().unwrap();
    // Health reads only [management], and needs no secret.
    let running = folder.path().join("running.toml");
    fs::write(&running, format!("[management]\nbind = \"0.0.0.0:{port}\"")).unwrap();
    let health = || {
        Command::new(PROGRAM)
            .arg("health")
            .arg("--config")
            .arg(&running)
            .output()
            .unwrap()
    };
    assert_eq!(health().status.code(), Some(0));
    drop(gate);
    let output = health();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot reach the gate"));
}

#[test]
fn faults_of_the_config_exit_with_2_for_check_and_serve() {
    let builder = Gate::standard().server("unknown", 1);
    let (_folder, config) = write_config(&builder, "nonsense");
    let text_of_config = fs::read_to_string(&config).unwrap();
    let line = text_of_config
        .lines()
        .position(|line| line == "unknown = 1")
        .unwrap()
        + 1;
    let line = format!("gate.toml:{line}:");
    for command in ["check", "serve"] {
        let output = run(&[command, "--config", config.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2));
        let faults = text(&output.stderr);
        assert!(faults.contains(&line), "{faults}");
        assert!(
            faults.contains("server.unknown") && faults.contains("imgwire.base_url"),
            "{faults}"
        );
    }
    let output = run(&["check", "--config", "/nowhere.toml"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_environment_can_name_the_config() {
    let (_folder, config) = write_config(&Gate::standard(), "https://api.imgwire.dev");
    let output = program(&[])
        .arg("check")
        .env("IMGWIRE_GATE_CONFIG", &config)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn schema_prints_a_json_schema_with_every_section() {
    let output = run(&["schema"]);
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    for section in [
        "server",
        "management",
        "telemetry",
        "imgwire",
        "session",
        "stores",
        "identities",
        "policies",
        "routes",
    ] {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
}

#[actix_web::test]
async fn the_curl_line_of_the_sandbox_gets_a_token() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut child = program(&[])
        .arg("sandbox")
        .stdout(log.reopen().unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    eventually("the curl line", async || {
        let output = fs::read_to_string(log.path()).unwrap();
        line = output
            .lines()
            .find(|line| line.starts_with("curl "))
            .unwrap_or_default()
            .to_owned();
        !line.is_empty() && output.ends_with('\n')
    })
    .await;
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(answer["uploadToken"].is_string(), "{answer}");
}

/// A config with the standard policies, and files beside it.
fn config_and(files: &[(&str, &str)]) -> (TempDir, String) {
    let (folder, path) = write_config(&Gate::standard(), "https://api.imgwire.dev");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn explain_prints_the_verdict_of_each_policy() {
    let request = r#"{
        "route": "/api/imgwire/upload-token",
        "subject": { "id": "user_1", "claims": { "workspaces": ["ws_1"] } },
        "workspace": "ws_9"
    }"#;
    let (folder, config) = config_and(&[
        ("request.json", request),
        ("odd.json", r#"{"who": 1}"#),
        ("line.json", r#"{"token": "a\nb"}"#),
    ]);
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let explained = run(&[
        "explain",
        "--config",
        &config,
        "--request",
        &file("request.json"),
    ]);
    assert_eq!(explained.status.code(), Some(0), "{explained:?}");
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(
        text.starts_with("POST /api/imgwire/upload-token: deny, 403 workspace_forbidden\n"),
        "{text}"
    );
    assert!(text.contains("1. signed-in (signed_in): allow"), "{text}");
    assert!(
        text.contains("2. member (workspace_member): deny: the user is not a member"),
        "{text}"
    );
    for name in ["odd.json", "line.json", "absent.json"] {
        let refused = run(&["explain", "--config", &config, "--request", &file(name)]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains(name));
    }
}

#[test]
fn test_names_the_cases_that_differ() {
    let cases = |expected: &str, workspace: &str| {
        format!(
            r#"
            [[cases]]
            name = "a member may"
            subject = {{ id = "user_1", claims = {{ workspaces = ["ws_1"] }} }}
            expect = "{expected}"
            [[cases]]
            name = "a stranger may not"
            subject = {{ id = "user_1", claims = {{ workspaces = ["ws_1"] }} }}
            {workspace} = "ws_9"
            file = {{ name = "me.png", mimeType = "image/png", size = 1 }}
            expect = "workspace_forbidden"
            [[cases]]
            name = "an anonymous request may not"
            expect = "not_signed_in"
            "#
        )
    };
    let good = cases("allow", "workspace");
    let bad = cases("quota_exhausted", "workspace");
    let odd = cases("allow", "workspce");
    let (folder, config) =
        config_and(&[("good.toml", &good), ("bad.toml", &bad), ("odd.toml", &odd)]);
    let run = |name: &str| {
        let path = folder.path().join(name);
        let output = run(&["test", "--config", &config, path.to_str().unwrap()]);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    assert_eq!(
        run("good.toml"),
        (Some(0), "3 passed, 0 failed\n".into(), String::new())
    );
    let (code, out, err) = run("bad.toml");
    assert_eq!(
        (code, out.as_str()),
        (Some(1), "2 passed, 1 failed\n"),
        "{err}"
    );
    assert!(
        err.contains("a member may: expected quota_exhausted, found"),
        "{err}"
    );
    let (code, _, err) = run("odd.toml");
    assert_eq!(code, Some(2));
    assert!(err.contains("workspce"), "{err}");
    assert!(
        !folder.path().join("gate.db").exists(),
        "nothing is counted"
    );
}
