//! `imgwire-gate quota` shows and resets a counter of the running gate.

use std::{fs, path::Path, process::Output};

use crate::{
    helpers::{Emulator, Gate, Token, env},
    process::{GateProcess, config_with_quota, gate_with_quota, program, text, write_config},
};

fn quota(config: &Path, arguments: &[&str]) -> Output {
    program(&[])
        .arg("quota")
        .args(arguments)
        .arg("--config")
        .arg(config)
        .env("TEST_MANAGEMENT_TOKEN", TOKEN)
        .output()
        .unwrap()
}

const TOKEN: &str = "the management token of the tests";

#[track_caller]
fn printed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    text(&output.stdout)
}

#[track_caller]
fn assert_fails(output: &Output, code: i32, message: &str) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let error = text(&output.stderr);
    assert!(error.contains(message), "{error}");
}

#[actix_web::test]
async fn the_usage_of_a_key_is_shown_and_given_back() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = config_with_quota(&imgwire, 2);
    let gate = GateProcess::start(&config, &[], "info").await;
    // The key is more than one segment of a path, and has every sign that a query gives a meaning.
    let token = Token::of("auth0|a/b ?&=#%+é").sign();
    let key = "auth0|a%2Fb ?&=#%25+é";
    assert_eq!(gate.ask(&token).await, Some(200));
    let shown = printed(&quota(&config, &["show", "quota", "--key", key]));
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(
        &lines[..3],
        [
            "policy        quota",
            &format!("key           {key}"),
            "used          1"
        ]
    );
    assert!(lines[3].starts_with("window start  20") && lines[3].ends_with("T00:00:00Z"));
    assert!(lines[4].starts_with("resets at     20") && lines[4].ends_with("T00:00:00Z"));
    assert_eq!(lines.len(), 5);

    assert_eq!(gate.ask(&token).await, Some(200));
    assert_eq!(gate.ask(&token).await, Some(429));
    let given_back = printed(&quota(&config, &["give-back", "quota", "--key", key]));
    assert_eq!(
        given_back,
        format!("quota: the usage under {key} is zero\n")
    );
    assert_eq!(gate.remaining(&token).await, 2);
    assert_eq!(gate.ask(&token).await, Some(200));
}

#[actix_web::test]
async fn an_unknown_policy_and_a_missing_gate_are_named() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = config_with_quota(&imgwire, 2);
    let gate = GateProcess::start(&config, &[], "info").await;
    for policy in ["nothing", "signed-in", "a/b"] {
        assert_fails(
            &quota(&config, &["show", policy, "--key", "user_1"]),
            1,
            "there is no such policy with counters that persist",
        );
    }
    drop(gate);
    let moved = fs::read_to_string(&config).unwrap();
    let moved = moved.replace(
        "[management]\nbind = \"127.0.0.1:0\"",
        "[management]\nbind = \"127.0.0.1:1\"",
    );
    fs::write(&config, moved).unwrap();
    assert_fails(
        &quota(&config, &["show", "quota", "--key", "user_1"]),
        1,
        "cannot reach the gate on 127.0.0.1:1: the connection was refused",
    );
    for arguments in [&["show", "quota"][..], &["show", "--key", "user_1"], &[]] {
        let output = quota(&config, arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}

#[actix_web::test]
async fn the_management_token_of_the_config_is_sent_over_tcp_and_a_unix_socket() {
    let imgwire = Emulator::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", folder.path().join("gate.sock").display());
    for bind in ["127.0.0.1:0", &socket] {
        let gate = gate_with_quota(2).management("bind", bind);
        let gate = gate.management("token", env("TEST_MANAGEMENT_TOKEN"));
        let (_folder, config) = write_config(&gate, imgwire.url());
        let variable = format!("TEST_MANAGEMENT_TOKEN={TOKEN}");
        let _gate = GateProcess::start(&config, &["env", &variable], "info").await;
        let arguments = ["show", "quota", "--key", "user_1"];
        let shown = printed(&quota(&config, &arguments));
        assert!(shown.contains("used          0"), "{shown}");

        // Another config leads to the same gate.
        let whole = fs::read_to_string(&config).unwrap();
        let other = whole.replace("TEST_MANAGEMENT_TOKEN", "TEST_SECRET");
        fs::write(&config, other).unwrap();
        assert_fails(
            &quota(&config, &arguments),
            1,
            "the gate has another management token",
        );
        let nowhere = whole.replace("TEST_MANAGEMENT_TOKEN", "NOWHERE");
        fs::write(&config, nowhere).unwrap();
        assert_fails(&quota(&config, &arguments), 2, "management.token");
        fs::remove_file(&config).unwrap();
        let output = quota(&config, &arguments);
        assert_fails(&output, 1, "the gate requires its management token");
        assert!(text(&output.stderr).contains("hint: "), "{output:?}");
    }
}

#[actix_web::test]
async fn a_gate_on_every_address_is_asked_on_loopback() {
    let imgwire = Emulator::start().unwrap();
    let gate = gate_with_quota(2).management("bind", "0.0.0.0:0");
    let gate = gate.management("token", env("TEST_MANAGEMENT_TOKEN"));
    let (_folder, config) = write_config(&gate, imgwire.url());
    let variable = format!("TEST_MANAGEMENT_TOKEN={TOKEN}");
    let _gate = GateProcess::start(&config, &["env", &variable], "info").await;
    printed(&quota(&config, &["show", "quota", "--key", "user_1"]));
}

#[test]
fn the_config_may_stand_before_the_subcommand() {
    let (_folder, config) = write_config(&Gate::standard(), "https://api.imgwire.dev");
    let output = program(&[])
        .args(["quota", "--config"])
        .arg(&config)
        .args(["show", "daily", "--key", "ws_1"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("cannot reach the gate"));
}
