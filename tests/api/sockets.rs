//! Unix sockets to listen on, and what happens when descriptors run out.

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

use imgwire_gate::sandbox::emulator::{Emulator, Misbehaviour};
use tempfile::TempDir;

use crate::{
    helpers::{Recipe, Token, eventually},
    process::{GateProcess, run, text, write_config},
};

/// A config that listens on this socket, with counters of its own.
fn config(imgwire: &Emulator, socket: &Path, more: &str) -> (TempDir, PathBuf) {
    let recipe = Recipe {
        bind: Some(format!("unix:{}", socket.display())),
        server: more.to_owned(),
        ..Recipe::accepting("[\"app\"]", "")
    };
    write_config(&recipe, imgwire.url())
}

/// What a gate that listens on `socket` answers a request without a credential.
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
async fn a_unix_socket_has_its_mode_whatever_the_umask() {
    let imgwire = Emulator::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (index, (umask, mode, expected)) in [
        ("000", "", 0o660),
        ("077", "", 0o660),
        ("022", "socket_mode = \"0600\"", 0o600),
        ("077", "socket_mode = \"666\"", 0o666),
    ]
    .into_iter()
    .enumerate()
    {
        let socket = folder.path().join(format!("{index}.sock"));
        let (_folder, config) = config(&imgwire, &socket, mode);
        let with_umask = format!("umask {umask}; exec \"$@\"");
        let _gate =
            GateProcess::start_with(&config, &["sh", "-c", &with_umask, "sh"], "info", &[]).await;
        let found = fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(found & 0o777, expected, "{umask} {mode}");
        assert_eq!(status(&socket), Some(401));
    }
}

#[test]
fn a_mode_that_is_none_is_a_fault() {
    for mode in [
        "\"\"",
        "\"rw-rw----\"",
        "\"0o660\"",
        "\"+660\"",
        "\"1777\"",
        "\"888\"",
        "660",
    ] {
        let recipe = Recipe {
            server: format!("socket_mode = {mode}"),
            ..Recipe::default()
        };
        let (_folder, config) = write_config(&recipe, "https://api.imgwire.dev");
        let output = run(&["check", "--config", config.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{mode}");
        let faults = text(&output.stderr);
        assert!(faults.contains("server.socket_mode: "), "{faults}");
    }
}

#[actix_web::test]
async fn a_second_gate_on_a_live_socket_is_refused_and_a_dead_one_is_replaced() {
    let imgwire = Emulator::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("gate.sock");
    let (_first, first) = config(&imgwire, &socket, "");
    let (_second, second) = config(&imgwire, &socket, "");
    let mut gate = GateProcess::start_with(&first, &[], "info", &[]).await;
    let inode = fs::metadata(&socket).unwrap().ino();

    let refused = run(&["--config", second.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    let reason = text(&refused.stderr);
    assert!(
        reason.contains("in use") && reason.contains("another gate"),
        "{reason}"
    );
    assert_eq!(fs::metadata(&socket).unwrap().ino(), inode);
    assert_eq!(status(&socket), Some(401));

    // Killed, it leaves its socket, and the next one takes its place.
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
async fn a_socket_that_is_too_busy_to_accept_is_live_and_other_files_are_left_alone() {
    let imgwire = Emulator::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("gate.sock");
    let (_config, config) = config(&imgwire, &socket, "");
    let refuse = || {
        let refused = run(&["--config", config.to_str().unwrap()]);
        assert_eq!(refused.status.code(), Some(1));
        text(&refused.stderr)
    };
    // Somebody listens, accepts nobody, and its backlog is full.
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
async fn of_gates_that_start_together_on_a_dead_socket_one_stays() {
    let imgwire = Emulator::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("gate.sock");
    for _ in 0..3 {
        drop(UnixListener::bind(&socket).unwrap());
        let configs: Vec<_> = (0..4).map(|_| config(&imgwire, &socket, "")).collect();
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
async fn the_soft_limit_on_open_files_is_raised_and_a_hard_one_that_is_too_low_is_told() {
    let imgwire = Emulator::start().unwrap();
    let recipe = Recipe::accepting("[\"app\"]", "");
    let (_folder, config) = write_config(&recipe, imgwire.url());
    let gate =
        GateProcess::start_with(&config, &["prlimit", "--nofile=256:2000"], "info", &[]).await;
    assert_eq!(soft_limit(&gate), 2000);
    let warned = warnings(&gate);
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert_eq!(warned[0]["limit"], 2000);
    assert!(warned[0]["connections"].as_u64().unwrap() < 1900);
    drop(gate);
    // The test's own limit may be too low for the other half of it.
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
async fn with_all_descriptors_taken_by_clients_the_gate_says_that_it_lives_and_serves_who_is_connected()
 {
    let imgwire = Emulator::start().unwrap();
    let recipe = Recipe::accepting("[\"app\"]", "");
    let (_folder, config) = write_config(&recipe, imgwire.url());
    let gate =
        GateProcess::start_with(&config, &["prlimit", "--nofile=400:400"], "info", &[]).await;
    let port: u16 = gate.url().rsplit(':').next().unwrap().parse().unwrap();
    // One that is connected before the flood asks, and keeps asking.
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
        // On a connection of its own each time.
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
    // Those who wait are served when there is room.
    drop(flood);
    eventually("room", async || gate.ask(&token).await == Some(200)).await;
}

#[actix_web::test]
async fn calls_to_imgwire_that_hang_take_no_descriptor_that_the_gate_needs_to_live() {
    let imgwire = Emulator::start().unwrap();
    let recipe = Recipe {
        imgwire: "timeout = \"20s\"\ndeadline = \"20s\"".to_owned(),
        ..Recipe::accepting("[\"app\"]", "")
    };
    let (_folder, config) = write_config(&recipe, imgwire.url());
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
    // As many run as the limit leaves room for; the others are refused and not left to fail.
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
