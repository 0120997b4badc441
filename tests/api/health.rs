//! `imgwire-gate health` asks the running gate, whatever has happened to its config file.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    helpers::{Emulator, Gate, Misbehaviour, eventually, rate_limit},
    process::{GateProcess, program, text, write_config},
    real_parts::free_port,
};

fn health_with(options: &[&str], config: &Path) -> Output {
    program(&[])
        .arg("health")
        .args(options)
        .arg("--config")
        .arg(config)
        .output()
        .unwrap()
}

fn health(config: &Path) -> Output {
    health_with(&[], config)
}

#[track_caller]
fn is_healthy(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        output.stdout.is_empty() && output.stderr.is_empty(),
        "{output:?}"
    );
}

/// It exits with 1 and prints one line.
#[track_caller]
fn is_unhealthy(output: &Output, message: &str) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let line = text(&output.stderr);
    assert!(line.contains(message), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
}

#[actix_web::test]
async fn an_edit_of_the_config_changes_nothing() {
    let imgwire = Emulator::start().unwrap();
    let (folder, config) = write_config(&Gate::accepting(["app"]), imgwire.url());
    let gate = GateProcess::start(&config, &[], "info").await;
    is_healthy(&health(&config));
    for edit in [
        "nonsense = [",
        "",
        "[management]\nbind = 1",
        "[management]\nbind = \"127.0.0.1:1\"",
        "[management]\nbind = \"unix:/nowhere.sock\"",
    ] {
        fs::write(&config, edit).unwrap();
        gate.signal("-HUP");
        is_healthy(&health(&config));
        is_healthy(&health_with(&["--live"], &config));
    }
    // A valid config on another address waits for a restart.
    let moved = Gate::accepting(["app"]).management("bind", "127.0.0.1:1");
    moved.write(imgwire.url(), folder.path());
    gate.signal("-HUP");
    eventually("the reload", async || {
        gate.log().contains("config reloaded")
    })
    .await;
    is_healthy(&health(&config));
    fs::remove_file(&config).unwrap();
    is_healthy(&health(&config));
}

#[actix_web::test]
async fn each_gate_of_a_machine_is_found_by_its_own_config_however_its_path_is_written() {
    let imgwire = Emulator::start().unwrap();
    let (first_folder, first) = write_config(&Gate::accepting(["app"]), imgwire.url());
    let (_second_folder, second) = write_config(&Gate::accepting(["app"]), imgwire.url());
    let link = first_folder.path().join("link.toml");
    symlink(&first, &link).unwrap();
    let mut one = GateProcess::start(&first, &[], "info").await;
    let _two = GateProcess::start(&second, &[], "info").await;
    let ask_both = || [health(&first), health(&second)];
    ask_both().iter().for_each(is_healthy);
    is_healthy(&health(&link));
    is_healthy(&health(
        &first_folder
            .path()
            .join("./../")
            .join(first_folder.path().file_name().unwrap())
            .join("gate.toml"),
    ));
    let relative = program(&[])
        .current_dir(first_folder.path())
        .args(["health", "--config", "gate.toml"])
        .output();
    is_healthy(&relative.unwrap());
    let by_variable = program(&[])
        .arg("health")
        .env("IMGWIRE_GATE_CONFIG", &first)
        .output();
    is_healthy(&by_variable.unwrap());

    one.signal("-KILL");
    one.end().await;
    let [first_health, second_health] = ask_both();
    is_unhealthy(&first_health, "cannot reach the gate");
    is_healthy(&second_health);
    // The next gate with this config is found at once.
    let _one = GateProcess::start(&first, &[], "info").await;
    ask_both().iter().for_each(is_healthy);
}

#[actix_web::test]
async fn the_next_gate_with_a_config_is_found_when_the_one_before_has_ended() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&Gate::accepting(["app"]), imgwire.url());
    let mut first = GateProcess::start(&config, &[], "info").await;
    let mut second = GateProcess::start(&config, &[], "info").await;
    eventually("the warning", async || {
        second
            .log()
            .contains("cannot open the socket for health checks")
    })
    .await;
    for gate in [&mut first, &mut second] {
        eventually("the gate's answer", async || {
            health(&config).status.code() == Some(0)
        })
        .await;
        gate.signal("-KILL");
        gate.end().await;
    }
    is_unhealthy(&health(&config), "cannot reach the gate");
}

#[actix_web::test]
async fn health_prints_what_is_failing_and_what_is_degraded() {
    let imgwire = Emulator::start().unwrap();
    imgwire.misbehave(Some(Misbehaviour::Slow(Duration::from_secs(3))));
    let nowhere = format!("redis://127.0.0.1:{}", free_port());
    for (on_failure, code) in [("deny", 1), ("local", 0)] {
        let limit = rate_limit().per(["user"]).limit(5).store("shared");
        let builder = Gate::accepting(["app"])
            .store("shared", json!({ "url": nowhere }))
            .policy("burst", limit.set("on_failure", on_failure))
            .chain(["signed-in", "burst"])
            .server("shutdown_delay", "2s");
        let (_folder, config) = write_config(&builder, imgwire.url());
        let mut gate = GateProcess::start(&config, &[], "info").await;
        let mut output = health(&config);
        eventually("the store's state", async || {
            output = health(&config);
            output
                .stdout
                .starts_with(b"ready, degraded: stores.shared\n")
                || code == 1
        })
        .await;
        if code == 1 {
            is_unhealthy(&output, "not ready, failing: stores.shared");
        }
        is_healthy(&health_with(&["--live"], &config));
        gate.signal("-TERM");
        eventually("draining", async || gate.log().contains("draining")).await;
        is_unhealthy(&health(&config), "draining");
        is_healthy(&health_with(&["--live"], &config));
        gate.signal("-TERM");
        gate.end().await;
    }
}

#[actix_web::test]
async fn a_gate_with_a_config_from_elsewhere_is_found() {
    let imgwire = Emulator::start().unwrap();
    let (folder, config) = write_config(&Gate::accepting(["app"]), imgwire.url());
    let whole = fs::read_to_string(&config).unwrap();
    let find = async |text: Option<&str>, arguments: &[&str]| {
        let ask = || {
            let mut command = program(&[]);
            command
                .current_dir(folder.path())
                .arg("health")
                .args(arguments);
            if let Some(text) = text {
                command.env("IMGWIRE_GATE_CONFIG_TOML", text);
            }
            command.output().unwrap()
        };
        eventually("the gate's health", async || ask().status.code() == Some(0)).await;
    };

    let mut by_variable = program(&[])
        .env("IMGWIRE_GATE_CONFIG_TOML", &whole)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    find(Some(&whole), &[]).await;
    by_variable.kill().unwrap();
    by_variable.wait().unwrap();

    let mut by_input = program(&[])
        .args(["--config", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = by_input.stdin.take().unwrap();
    input.write_all(whole.as_bytes()).unwrap();
    drop(input);
    find(None, &["--config", "-"]).await;
    by_input.kill().unwrap();
    by_input.wait().unwrap();
    is_unhealthy(&health(Path::new("-")), "no gate runs with this config");
}

#[actix_web::test]
async fn the_sandbox_is_found_by_its_config() {
    let (_folder, config) = write_config(&Gate::accepting(["app"]), "https://api.imgwire.dev");
    let mut sandbox = program(&[])
        .args(["sandbox", "--port", &free_port().to_string(), "--config"])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("its health", async || {
        health(&config).status.code() == Some(0)
    })
    .await;
    sandbox.kill().unwrap();
    sandbox.wait().unwrap();
}

#[actix_web::test]
async fn health_works_for_another_user_on_a_read_only_file_system() {
    let imgwire = Emulator::start().unwrap();
    let (folder, config) = write_config(&Gate::accepting(["app"]), imgwire.url());
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    // Everything but /proc is read-only, also for the gate, which needs no store.
    let read_only = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        "mount -o remount,bind,ro / && for m in /tmp /dev/shm /run; do mount -o remount,bind,ro $m 2>/dev/null; done; \
         exec \"$@\"",
        "sh",
    ];
    let can_unshare = Command::new("unshare").args(["--mount", "true"]).status();
    if !is_root || !can_unshare.is_ok_and(|status| status.success()) {
        return;
    }
    let gate = GateProcess::start(&config, &read_only, "info").await;
    let text = format!("/proc/{}/root{}/new", gate.id(), folder.path().display());
    assert!(fs::write(text, "").is_err(), "the file system is read-only");
    is_healthy(&health(&config));
    fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let other = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(crate::process::PROGRAM)
        .args(["health", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    is_healthy(&other);
}

/// Something else listens where the config has the management listener.
fn fake(
    respond: impl FnOnce(std::net::TcpStream) + Send + 'static,
) -> (tempfile::TempDir, std::path::PathBuf) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || respond(listener.accept().unwrap().0));
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gate.toml");
    fs::write(&config, format!("[management]\nbind = \"{address}\"")).unwrap();
    (folder, config)
}

#[test]
fn other_responses_are_bounded_in_size_and_time() {
    let began = Instant::now();
    let (_folder, config) = fake(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    is_unhealthy(&health(&config), "too large");
    // Each byte comes in time.
    let (_folder, config) = fake(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"X-A: b\r\n").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    is_unhealthy(&health(&config), "did not respond within 2s");
    let (_folder, config) = fake(|mut stream| {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH\r\n");
        let _ = stream.read(&mut [0]);
    });
    is_unhealthy(&health(&config), "not HTTP");
    let (_folder, config) = fake(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    });
    is_unhealthy(&health(&config), "not the management listener of a gate");
    let (_folder, config) = fake(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let body = "{\"status\":\"failing\",\"failing\":[\"a\\n\\u001b[31mb\"],\"degraded\":[]}";
        let length = body.len();
        let head = format!("HTTP/1.1 503 No\r\nContent-Length: {length}\r\n\r\n{body}");
        let _ = stream.write_all(head.as_bytes());
    });
    is_unhealthy(&health(&config), "failing: a[31mb");
    assert!(began.elapsed() < Duration::from_secs(15));
}
