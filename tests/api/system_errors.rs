//! Failures of the operating system: what the program says, in words without the numbers of errors.

use std::{
    fs::{self, File},
    net::TcpListener,
    os::unix::fs::symlink,
    process::{Command, Stdio},
};

use serde_json::json;

use crate::{
    helpers::{Emulator, Gate, eventually},
    process::{GateProcess, program, text, write_config},
    sockets::listening,
};

/// Runs a command that fails, and checks what it says.
#[track_caller]
fn fails(mut command: Command, code: i32, expected: &[&str]) {
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(!error.contains("os error"), "{error}");
    for part in expected {
        assert!(error.contains(part), "{part}: {error}");
    }
    let hints = error.lines().filter(|line| line.starts_with("hint: "));
    assert!(error.lines().count() - hints.count() <= 1, "{error}");
}

fn with(arguments: &[&str]) -> Command {
    let mut command = program(&[]);
    command.args(arguments);
    command
}

#[test]
fn a_sandbox_without_a_folder_for_temporary_files_says_how_to_name_one() {
    let mut command = with(&["sandbox"]);
    command.env("TMPDIR", "/nowhere");
    let missing = "cannot create a folder in /nowhere: No such file or directory";
    fails(command, 1, &[missing, "hint: set TMPDIR to a folder"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let mut command = with(&["sandbox"]);
    command.env("TMPDIR", &file);
    fails(
        command,
        1,
        &["Not a directory", "hint: set TMPDIR to a folder"],
    );
}

#[test]
fn a_listener_that_cannot_be_opened_says_why() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let emulator = with(&["sandbox", "--imgwire-port", &port.to_string()]);
    let in_use = format!("cannot listen on 127.0.0.1:{port}: Address already in use");
    fails(emulator, 1, &[&in_use]);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let serve = |gate: &Gate| {
        let (folder, config) = write_config(gate, "https://api.imgwire.dev");
        let mut command = with(&["--config"]);
        command.arg(&config);
        (folder, command)
    };
    for (gate, expected) in [
        (
            listening(&folder.path().join("missing/gate.sock")),
            &["No such file or directory", "hint: create the folder"][..],
        ),
        (listening(&file.join("gate.sock")), &["Not a directory"]),
        (
            Gate::standard().server("bind", "192.0.2.1:8080"),
            &[
                "Cannot assign requested address",
                "hint: this machine does not have",
            ],
        ),
        (
            Gate::standard().management("bind", format!("127.0.0.1:{port}")),
            &["Address already in use", "hint: another process listens"],
        ),
    ] {
        let (_folder, command) = serve(&gate);
        fails(command, 1, expected);
    }
}

#[test]
fn a_config_or_a_secret_that_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("file"), "").unwrap();
    symlink("loop", path("loop")).unwrap();
    let long = path(&"x".repeat(300));
    for (file, reason) in [
        (path("file/gate.toml"), "Not a directory"),
        (path("loop"), "Too many levels of symbolic links"),
        (long.clone(), "File name too long"),
    ] {
        let reason = format!("cannot be read: {reason}");
        fails(with(&["check", &file]), 2, &[&reason]);
    }
    for (file, reason) in [
        (path("missing"), "it does not exist"),
        (path(""), "it is a folder"),
        (path("file/secret"), "Not a directory"),
        (path("loop"), "Too many levels of symbolic links"),
        (long, "File name too long"),
    ] {
        let gate = Gate::accepting(["app"]);
        let gate = gate.set("identities.app.secret", json!({ "file": file }));
        let (_folder, config) = write_config(&gate, "https://api.imgwire.dev");
        let fault = format!("identities.app.secret: the file `{file}` cannot be read: {reason}");
        fails(with(&["check", config.to_str().unwrap()]), 2, &[&fault]);
    }
    let mut by_input = with(&["check", "-"]);
    by_input.stdin(File::open(folder.path()).unwrap());
    fails(by_input, 2, &["<stdin>: Is a directory"]);
}

#[test]
fn output_that_cannot_be_written_is_a_failure_with_its_reason() {
    let mut full = with(&["schema"]);
    full.stdout(File::create("/dev/full").unwrap());
    let reason = "cannot write to standard output: No space left on device";
    fails(full, 1, &[reason]);
}

#[actix_web::test]
async fn a_second_gate_with_one_config_says_why_health_does_not_find_it() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&Gate::accepting(["app"]), imgwire.url());
    let _first = GateProcess::start(&config, &[], "info").await;
    let second = GateProcess::start(&config, &[], "info").await;
    let warning = || {
        let mut lines = second.lines().into_iter();
        lines.find(|line| line["message"] == "cannot open the socket for health checks")
    };
    eventually("the warning", async || warning().is_some()).await;
    assert_eq!(warning().unwrap()["error"], "Address already in use");
}
