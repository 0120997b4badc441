//! The command line: help, version, completions, colours, and errors that say what to do.

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    helpers::{Gate, workspace_member},
    process::{program, run, text, write_config},
    real_parts::are_here,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_imgwire-gate");

/// Writes the config of a gate into a new folder.
fn config(gate: &Gate) -> (tempfile::TempDir, String) {
    let (folder, path) = write_config(gate, "https://api.imgwire.dev");
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn help_begins_with_the_first_commands_to_run() {
    let help = text(&run(&["--help"]).stdout);
    for line in [
        "Get started:",
        "imgwire-gate sandbox",
        "doctor --probe",
        "Exit status: 0",
    ] {
        assert!(help.contains(line), "{line}");
    }
    for command in [
        "check",
        "doctor",
        "explain",
        "test",
        "completions",
        "health",
        "images",
        "quota",
        "schema",
        "openapi",
    ] {
        let output = run(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(text(&output.stdout).contains("Usage: imgwire-gate"));
    }
}

#[test]
fn the_version_names_the_commit_of_the_build() {
    let version = text(&run(&["--version"]).stdout);
    let version = version.trim();
    let commit = version
        .strip_prefix(concat!("imgwire-gate ", env!("CARGO_PKG_VERSION"), " ("))
        .and_then(|rest| rest.strip_suffix(')'));
    let commit = commit.unwrap_or_else(|| panic!("{version}"));
    let is_commit = commit.len() >= 7 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    // A tarball has no commit.
    let has_git = Path::new(env!("CARGO_MANIFEST_DIR")).join(".git").exists();
    assert!(is_commit || !has_git && commit == "unknown", "{version}");
}

#[test]
fn completions_work_for_bash_zsh_and_fish() {
    for (shell, expected) in [
        ("bash", "_imgwire__gate"),
        ("zsh", "#compdef imgwire-gate"),
        ("fish", "complete -c imgwire-gate"),
    ] {
        let script = text(&run(&["completions", shell]).stdout);
        assert!(script.contains(expected), "{shell}");
        assert!(script.contains("sandbox"), "{shell}");
    }
    if are_here(&["bash"]) {
        let complete = format!(
            "source <({PROGRAM} completions bash); COMP_WORDS=(imgwire-gate che); COMP_CWORD=1; \
             _imgwire__gate imgwire-gate che imgwire-gate; echo ${{COMPREPLY[@]}}"
        );
        let output = Command::new("bash")
            .args(["-c", &complete])
            .output()
            .unwrap();
        assert_eq!(text(&output.stdout).trim(), "check", "{output:?}");
    }
    assert_eq!(run(&["completions", "nothing"]).status.code(), Some(2));
}

#[test]
fn commands_offer_only_the_options_that_they_use() {
    for arguments in [
        &["schema", "--config", "gate.toml"][..],
        &["openapi", "--config", "gate.toml"],
        &["completions", "bash", "--config", "gate.toml"],
        &["check", "--watch"],
        &["health", "--watch"],
        &["explain", "--request", "request.json", "--watch"],
        &["test", "cases.toml", "--watch"],
        &["sandbox", "--watch"],
        &["serve", "--port", "8080"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let error = text(&output.stderr);
        assert!(error.contains("unexpected argument"), "{error}");
    }
}

#[test]
fn check_takes_the_file_as_an_argument() {
    let (_folder, path) = config(&Gate::standard());
    let checked = run(&["check", "--config", &path]);
    let output = program(&[])
        .args(["check", &path])
        .env("IMGWIRE_GATE_CONFIG", "/nowhere.toml")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stdout, checked.stdout);
    assert_eq!(run(&["check", "/nowhere.toml"]).status.code(), Some(2));
}

#[test]
fn check_prints_each_policy_of_a_route_and_its_status() {
    let (_folder, path) = config(&Gate::standard());
    let output = run(&["check", "--config", &path]);
    assert_eq!(
        text(&output.stdout),
        "POST /api/imgwire/upload-token\n  \
         │ 1. signed-in (signed_in): the user is signed in by app, browser; else 401\n  \
         │ 2. member (workspace_member): a member of the workspace, by the claim workspaces; else 403\n  \
         │ 3. burst (rate_limit): 30 in 60s per user, counted in memory; else 429\n  \
         │ 4. daily (quota): 500 per day per workspace, counted in main; else 429\n  \
         ╰ 200 with an upload token\n"
    );
}

#[test]
fn check_prints_warnings_and_exits_with_0() {
    let query = "select role from members where user_id = $1 and workspace_id = $2";
    let gate = Gate::standard().policy("member", workspace_member().store("main").query(query));
    let (_folder, path) = config(&gate);
    let output = run(&["check", "--config", &path]);
    assert_eq!(output.status.code(), Some(0));
    let printed = text(&output.stdout);
    assert!(
        printed.starts_with("POST /api/imgwire/upload-token\n"),
        "{printed}"
    );
    assert!(
        printed.contains(": policies.member.query: the query selects one column"),
        "{printed}"
    );
}

#[test]
fn check_uses_colours_only_on_a_terminal() {
    let (_folder, path) = config(&Gate::standard().server("unknown", 1));
    let plain = text(&run(&["check", "--config", &path]).stderr);
    assert!(!plain.contains('\u{1b}'), "{plain}");
    if are_here(&["script"]) {
        let command = format!("{PROGRAM} check --config {path}");
        let on_a_terminal = |variable: &str, value: &str| {
            let output = Command::new("script")
                .args(["-qec", &command, "/dev/null"])
                .env("TERM", "xterm")
                .env(variable, value)
                .stdin(Stdio::null())
                .output()
                .unwrap();
            text(&output.stdout)
        };
        assert!(on_a_terminal("LANG", "C").contains('\u{1b}'));
        assert!(!on_a_terminal("NO_COLOR", "1").contains('\u{1b}'));
    }
}

#[test]
fn a_gate_that_cannot_start_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (_folder, path) = config(&Gate::standard().server("bind", address));
    let output = run(&["--config", &path]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("cannot listen on 127.0.0.1:"), "{error}");
    assert!(
        error.contains("hint: another process listens on this address"),
        "{error}"
    );

    let elsewhere = Command::new(PROGRAM)
        .env_clear()
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap();
    let error = text(&elsewhere.stderr);
    assert!(error.contains("imgwire-gate sandbox"), "{error}");
}
