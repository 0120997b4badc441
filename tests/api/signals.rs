//! Signals before the gate serves, and those that it does not stop for.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    helpers::{Emulator, Gate, Token, eventually, published_jwt, rate_limit},
    process::{GateProcess, program, write_config},
    real_parts::free_port,
};

/// A named pipe in place of the config, from which the gate reads until someone has written it.
pub(crate) fn pipe(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("pipe.toml");
    assert!(
        Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );
    path
}

/// Whether a process handles a signal.
fn handles(id: u32, signal: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.is_some_and(|mask| {
        let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
        mask & (1 << (signal - 1)) != 0
    })
}

const SIGHUP: u32 = 1;
const SIGTERM: u32 = 15;

#[actix_web::test]
async fn a_hangup_while_the_config_is_read_reloads_after_the_start() {
    let imgwire = Emulator::start().unwrap();
    let (folder, config) = write_config(&Gate::accepting(["app"]), imgwire.url());
    let pipe = pipe(folder.path());
    let mut gate = GateProcess::spawn(&pipe, &[], "info", &[]);
    eventually("the handlers", async || handles(gate.id(), SIGHUP)).await;
    gate.signal("-HUP");
    thread::sleep(Duration::from_millis(50));
    assert!(gate.child.try_wait().unwrap().is_none());
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&pipe, &text).unwrap();
    eventually("the start", async || gate.log().contains("listening")).await;
    // The reload reads the pipe again.
    fs::write(&pipe, &text).unwrap();
    eventually("the reload", async || {
        gate.log().contains("config reloaded")
    })
    .await;
    gate.signal("-TERM");
    assert_eq!(gate.end().await.code(), Some(0));
}

#[actix_web::test]
async fn a_signal_to_stop_while_the_config_is_read_ends_the_gate_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = pipe(folder.path());
    for signal in ["-TERM", "-INT", "-QUIT"] {
        let mut gate = GateProcess::spawn(&pipe, &[], "info", &[]);
        eventually("the handlers", async || handles(gate.id(), SIGTERM)).await;
        let began = Instant::now();
        gate.signal(signal);
        assert_eq!(gate.end().await.code(), Some(0), "{signal}");
        assert!(began.elapsed() < Duration::from_secs(2));
    }
}

#[actix_web::test]
async fn handlers_stand_before_the_arguments_are_parsed() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = pipe(folder.path());
    for _ in 0..20 {
        let gate = GateProcess::spawn(&pipe, &[], "info", &[]);
        let began = Instant::now();
        while !handles(gate.id(), SIGHUP) {
            assert!(began.elapsed() < Duration::from_secs(5));
        }
        // From now on, hangups at any time do no harm.
        for _ in 0..5 {
            gate.signal("-HUP");
        }
        eventually("the other handlers", async || {
            [2, 3, SIGTERM]
                .iter()
                .all(|signal| handles(gate.id(), *signal))
        })
        .await;
    }
}

#[actix_web::test]
async fn hangups_during_the_start_do_not_end_the_gate() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&Gate::accepting(["app"]), imgwire.url());
    for round in 0..20 {
        let mut gate = GateProcess::spawn(&config, &[], "info", &[]);
        eventually("the handlers", async || handles(gate.id(), SIGHUP)).await;
        thread::sleep(Duration::from_millis(round));
        gate.signal("-HUP");
        eventually("the start", async || {
            assert!(gate.child.try_wait().unwrap().is_none(), "{}", gate.log());
            gate.log().contains("listening")
        })
        .await;
    }
}

#[actix_web::test]
async fn a_signal_to_stop_ends_a_gate_whose_key_set_and_store_do_not_answer() {
    let imgwire = Emulator::start().unwrap();
    // Accepts connections and says nothing.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap();
    let builder = Gate::accepting(["idp"])
        .identity(
            "idp",
            published_jwt(["RS256"], &format!("http://{address}/keys")),
        )
        .exchange(["idp"])
        .store("shared", json!({ "url": format!("redis://{address}") }))
        .policy("burst", rate_limit().per(["user"]).limit(5).store("shared"))
        .chain(["signed-in", "burst"]);
    let (_folder, config) = write_config(&builder, imgwire.url());
    let mut gate = GateProcess::start(&config, &[], "info").await;
    let began = Instant::now();
    gate.signal("-TERM");
    assert_eq!(gate.end().await.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[actix_web::test]
async fn the_quit_signal_drains_and_writes_no_core_file() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&Gate::accepting(["app"]), imgwire.url());
    let mut gate = GateProcess::start(&config, &[], "info").await;
    gate.signal("-QUIT");
    assert_eq!(gate.end().await.code(), Some(0));
    assert!(gate.log().contains("draining"));
}

#[actix_web::test]
async fn a_closed_standard_error_does_not_end_the_gate() {
    let imgwire = Emulator::start().unwrap();
    let port = free_port();
    let builder = Gate::accepting(["app"]).server("bind", format!("127.0.0.1:{port}"));
    let (_folder, config) = write_config(&builder, imgwire.url());
    let mut child = program(&[])
        .arg("--config")
        .arg(&config)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    let url = format!("http://127.0.0.1:{port}");
    let token = Token::of("user_1").sign();
    for _ in 0..3 {
        eventually("a token", async || {
            GateProcess::ask_at(&url, &token).await == Some(200)
        })
        .await;
    }
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn other_commands_end_by_signals_as_usual() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = pipe(folder.path());
    let mut child = program(&[]).arg("check").arg(&pipe).spawn().unwrap();
    thread::sleep(Duration::from_millis(200));
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().unwrap().code(), None);
}
