//! Unix sockets, and limits on open files.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    helpers::{Emulator, Gate, Misbehaviour, Token, eventually},
    process::{GateProcess, run, text, write_config},
};

/// A gate that listens on this socket.
pub(crate) fn listening(socket: &Path) -> Gate {
    Gate::accepting(["app"]).server("bind", format!("unix:{}", socket.display()))
}

/// The config of such a gate, with its own counters.
fn config(imgwire: &Emulator, socket: &Path) -> (TempDir, PathBuf) {
    write_config(&listening(socket), imgwire.url())
}

/// The status of a request without a credential to the gate on `socket`.
fn status(socket: &Path) -> Option<u16> {
    let mut stream = UnixStream::connect(socket).ok()?;
    let request =
        "POST /api/imgwire/upload-token HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

#[actix_web::test]
async fn a_unix_socket_has_the_configured_mode_whatever_the_umask() {
    let imgwire = Emulator::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (index, (umask, mode, expected)) in [
        ("000", None, 0o660),
        ("077", None, 0o660),
        ("022", Some("0600"), 0o600),
        ("077", Some("666"), 0o666),
    ]
    .into_iter()
    .enumerate()
    {
        let socket = folder.path().join(format!("{index}.sock"));
        let gate = listening(&socket);
        let gate = match mode {
            Some(mode) => gate.server("socket_mode", mode),
            None => gate,
        };
        let (_folder, config) = write_config(&gate, imgwire.url());
        let with_umask = format!("umask {umask}; exec \"$@\"");
        let _gate =
            GateProcess::start_with(&config, &["sh", "-c", &with_umask, "sh"], "info", &[]).await;
        let found = fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(found & 0o777, expected, "{umask} {mode:?}");
        assert_eq!(status(&socket), Some(401));
    }
}

#[test]
fn an_invalid_socket_mode_is_a_fault() {
    for mode in [
        json!(""),
        json!("rw-rw----"),
        json!("0o660"),
        json!("+660"),
        json!("1777"),
        json!("888"),
        json!(660),
    ] {
        let gate = Gate::standard().server("socket_mode", &mode);
        let (_folder, config) = write_config(&gate, "https://api.imgwire.dev");
        let output = run(&["check", "--config", config.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{mode}");
        let faults = text(&output.stderr);
        assert!(faults.contains("server.socket_mode: "), "{faults}");
    }
}

#[actix_web::test]
async fn a_second_gate_on_a_live_socket_fails_to_start_and_a_dead_socket_is_replaced() {
    let imgwire = Emulator::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("gate.sock");
    let (_first, first) = config(&imgwire, &socket);
    let (_second, second) = config(&imgwire, &socket);
    let mut gate = GateProcess::start_with(&first, &[], "info", &[]).await;
    let inode = fs::metadata(&socket).unwrap().ino();

    let refused = run(&["--config", second.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    let reason = text(&refused.stderr);
    assert!(
        reason.contains("in use") && reason.contains("another process"),
        "{reason}"
    );
    assert_eq!(fs::metadata(&socket).unwrap().ino(), inode);
    assert_eq!(status(&socket), Some(401));

    // A killed gate leaves its socket, and the next gate replaces it.
    gate.signal("-KILL");
    gate.end().await;
    assert!(socket.exists());
    assert_eq!(status(&socket), None);
    let mut gate = GateProcess::start_with(&second, &[], "info", &[]).await;
    assert_eq!(status(&socket), Some(401));
    gate.signal("-TERM");
    assert_eq!(gate.end().await.code(), Some(0));
}

#[actix_web::test]
async fn a_socket_too_busy_to_accept_is_live_and_other_files_are_not_replaced() {
    let imgwire = Emulator::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("gate.sock");
    let (_config, config) = config(&imgwire, &socket);
    let refuse = || {
        let refused = run(&["--config", config.to_str().unwrap()]);
        assert_eq!(refused.status.code(), Some(1));
        text(&refused.stderr)
    };
    // A listener that never accepts, with a full backlog.
    let busy = UnixListener::bind(&socket).unwrap();
    let mut waiting = Vec::new();
    loop {
        let client =
            socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        match client.connect(&socket2::SockAddr::unix(&socket).unwrap()) {
            Ok(()) => waiting.push(client),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                break;
            }
        }
    }
    let reason = refuse();
    assert!(reason.contains("in use"), "{reason}");
    drop((busy, waiting));
    fs::remove_file(&socket).unwrap();

    fs::write(&socket, "something of value").unwrap();
    let reason = refuse();
    assert!(reason.contains("not a socket"), "{reason}");
    assert_eq!(fs::read_to_string(&socket).unwrap(), "something of value");
    fs::remove_file(&socket).unwrap();
    let value = folder.path().join("value");
    fs::write(&value, "something of value").unwrap();
    std::os::unix::fs::symlink(&value, &socket).unwrap();
    let reason = refuse();
    assert!(reason.contains("not a socket"), "{reason}");
    assert_eq!(fs::read_to_string(&value).unwrap(), "something of value");
}

#[actix_web::test]
async fn only_one_of_several_gates_starts_on_a_dead_socket() {
    let imgwire = Emulator::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("gate.sock");
    for _ in 0..3 {
        drop(UnixListener::bind(&socket).unwrap());
        let configs: Vec<_> = (0..4).map(|_| config(&imgwire, &socket)).collect();
        let mut gates: Vec<_> = configs
            .iter()
            .map(|(_, config)| GateProcess::spawn(config, &[], "info", &[]))
            .collect();
        eventually("all but one to give up", async || {
            gates.retain_mut(|gate| gate.child.try_wait().unwrap().is_none());
            gates.len() == 1 && gates[0].log().contains("listening")
        })
        .await;
        assert_eq!(status(&socket), Some(401));
        drop(gates);
        fs::remove_file(&socket).unwrap();
    }
}

/// The soft limit on open files of a process.
fn soft_limit(gate: &GateProcess) -> u64 {
    let limits = fs::read_to_string(format!("/proc/{}/limits", gate.child.id())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let words: Vec<_> = line.unwrap().split_whitespace().collect();
    words[3].parse().unwrap()
}

fn warnings(gate: &GateProcess) -> Vec<serde_json::Value> {
    let lines = gate.lines().into_iter();
    lines
        .filter(|line| line["max_connections"].is_u64() && line["level"] == "WARN")
        .collect()
}

#[actix_web::test]
async fn the_soft_limit_on_open_files_is_raised_and_a_low_hard_limit_is_warned_of() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&Gate::accepting(["app"]), imgwire.url());
    let gate =
        GateProcess::start_with(&config, &["prlimit", "--nofile=256:2000"], "info", &[]).await;
    assert_eq!(soft_limit(&gate), 2000);
    let warned = warnings(&gate);
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert_eq!(warned[0]["limit"], 2000);
    assert!(warned[0]["connections"].as_u64().unwrap() < 1900);
    drop(gate);
    // The hard limit of the test's process may be too low for the other half.
    let own = fs::read_to_string("/proc/self/limits").unwrap();
    let own = own.lines().find(|line| line.starts_with("Max open files"));
    let hard = own.unwrap().split_whitespace().nth(4).unwrap().to_owned();
    if hard == "unlimited" || hard.parse::<u64>().unwrap() >= 14_000 {
        let gate =
            GateProcess::start_with(&config, &["prlimit", "--nofile=256:14000"], "info", &[]).await;
        assert_eq!(soft_limit(&gate), 14_000);
        assert!(warnings(&gate).is_empty());
    }
}

#[actix_web::test]
async fn a_gate_without_free_descriptors_is_live_and_serves_connected_clients() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&Gate::accepting(["app"]), imgwire.url());
    let gate =
        GateProcess::start_with(&config, &["prlimit", "--nofile=400:400"], "info", &[]).await;
    let port: u16 = gate.url().rsplit(':').next().unwrap().parse().unwrap();
    // A client that connected before the flood keeps asking.
    let token = Token::of("user_1").sign();
    let request = format!(
        "POST /api/imgwire/upload-token HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    let mut connected = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connected
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut ask = || {
        connected.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let read = connected.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..read]).contains("HTTP/1.1 200")
    };
    assert!(ask());
    let flood: Vec<_> = (0..600)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    let client = awc::Client::builder()
        .timeout(Duration::from_secs(5))
        .finish();
    let lives = async || {
        // Each request opens a new connection.
        let request = client
            .get(format!("{}/livez", gate.management()))
            .force_close();
        request
            .send()
            .await
            .is_ok_and(|answer| answer.status() == 200)
    };
    let began = Instant::now();
    for _ in 0..20 {
        assert!(lives().await, "{}", gate.log());
        assert!(ask());
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert!(!gate.log().contains("accepting"), "{}", gate.log());
    // Waiting clients are served when there is room.
    drop(flood);
    eventually("room", async || gate.ask(&token).await == Some(200)).await;
}

#[actix_web::test]
async fn hanging_calls_to_imgwire_leave_descriptors_for_the_gate() {
    let imgwire = Emulator::start().unwrap();
    let gate = Gate::accepting(["app"])
        .imgwire("timeout", "20s")
        .imgwire("deadline", "20s");
    let (_folder, config) = write_config(&gate, imgwire.url());
    let gate =
        GateProcess::start_with(&config, &["prlimit", "--nofile=300:300"], "info", &[]).await;
    imgwire.misbehave(Some(Misbehaviour::Hang));
    let port: u16 = gate.url().rsplit(':').next().unwrap().parse().unwrap();
    let token = Token::of("user_1").sign();
    let request = format!(
        "POST /api/imgwire/upload-token HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    let flood: Vec<_> = (0..400)
        .map(|_| {
            let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            client.write_all(request.as_bytes()).unwrap();
            client
        })
        .collect();
    let client = awc::Client::builder()
        .timeout(Duration::from_secs(5))
        .finish();
    let metric = async |name: &str| {
        let metrics = client.get(format!("{}/metrics", gate.management()));
        let mut metrics = metrics.force_close().send().await.unwrap();
        let text = String::from_utf8(metrics.body().await.unwrap().to_vec()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0.0, |value| value.trim().parse::<f64>().unwrap())
    };
    // As many calls run as the limit leaves room for, and the other requests are refused.
    eventually("the flood", async || {
        metric("imgwire_gate_overloaded_total ").await > 0.0
            && metric("imgwire_gate_in_flight ").await >= 40.0
    })
    .await;
    for _ in 0..20 {
        let lives = client.get(format!("{}/livez", gate.management()));
        assert_eq!(lives.force_close().send().await.unwrap().status(), 200);
    }
    assert!(!gate.log().contains("os error 24"), "{}", gate.log());
    drop(flood);
}
