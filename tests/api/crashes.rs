//! What a crash, a full disk and a signal do to a gate; and its start.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    helpers::{Emulator, Misbehaviour, Token, eventually},
    process::{GateProcess, config_with_quota, gate_with_quota, run, text, write_config},
};

#[actix_web::test]
async fn repeated_kills_never_issue_a_token_too_many_and_lose_only_requests_in_flight() {
    const LIMIT: u64 = 400;
    const CALLERS: u64 = 16;
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = config_with_quota(&imgwire, LIMIT);
    let token = Token::of("user_1").sign();
    let mut issued = 0;
    let mut kills = 0;
    while kills < 12 {
        let mut gate = GateProcess::start(&config, &[], "info").await;
        let left = gate.remaining(&token).await;
        assert!(issued + left <= LIMIT, "{issued} issued, {left} left");
        assert!(
            issued + left + CALLERS * kills >= LIMIT,
            "{issued} issued, {left} left, {kills} kills"
        );
        let callers = (0..CALLERS).map(|_| async {
            let mut got = 0;
            while let Some(status) = gate.ask(&token).await {
                got += u64::from(status == 200);
                if status == 429 {
                    break;
                }
            }
            got
        });
        let pid = gate.child.id().to_string();
        let killer = async {
            tokio::time::sleep(Duration::from_millis(20 + 5 * kills)).await;
            assert!(
                Command::new("kill")
                    .args(["-KILL", &pid])
                    .status()
                    .unwrap()
                    .success()
            );
        };
        let (got, ()) =
            futures_util::future::join(futures_util::future::join_all(callers), killer).await;
        issued += got.into_iter().sum::<u64>();
        gate.end().await;
        kills += 1;
        assert!(issued <= LIMIT);
    }
    assert!(issued > 0);
}

#[actix_web::test]
async fn a_second_process_with_the_same_sqlite_file_fails_to_start() {
    let imgwire = Emulator::start().unwrap();
    let (folder, config) = config_with_quota(&imgwire, 10);
    let _first = GateProcess::start(&config, &[], "info").await;
    let output = run(&["--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("in use by another process"),
        "{}",
        text(&output.stderr)
    );

    // A symbolic link to the same file is refused, too.
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(folder.path().join("gate.db"), &link).unwrap();
    let url = format!("sqlite:{}", link.display());
    let other = gate_with_quota(10).set("stores.main.url", url);
    let (_other, other_config) = write_config(&other, imgwire.url());
    let output = run(&["--config", other_config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
}

#[actix_web::test]
async fn a_full_disk_is_a_fault_until_there_is_room() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = config_with_quota(&imgwire, 1000);
    // A limit on the size of files acts like a full disk; its signal must be ignored.
    let gate = GateProcess::start(&config, &["env", "--ignore-signal=XFSZ"], "info").await;
    let token = Token::of("user_1").sign();
    assert_eq!(gate.ask(&token).await, Some(200));
    let limit_files = |bytes: &str| {
        let pid = gate.child.id().to_string();
        let status = Command::new("prlimit")
            .args(["--pid", &pid, &format!("--fsize={bytes}")])
            .status();
        assert!(status.unwrap().success());
    };
    limit_files("1000:");
    for _ in 0..3 {
        assert_eq!(gate.ask(&token).await, Some(500));
    }
    limit_files("unlimited:");
    eventually("recovery", async || gate.ask(&token).await == Some(200)).await;
    assert_eq!(gate.remaining(&token).await, 998);
}

#[actix_web::test]
async fn the_gate_starts_within_half_a_second() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = config_with_quota(&imgwire, 10);
    // Other tests use the machine too, so the best of several tries counts.
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        let gate = GateProcess::start(&config, &[], "info").await;
        best = best.min(started.elapsed());
        drop(gate);
    }
    assert!(best < Duration::from_millis(500), "{best:?}");
}

#[actix_web::test]
async fn sigterm_finishes_running_requests_and_exits_with_0() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = config_with_quota(&imgwire, 10);
    let mut gate = GateProcess::start(&config, &[], "info").await;
    imgwire.misbehave_next([Misbehaviour::Slow(Duration::from_millis(300))]);
    let token = Token::of("user_1").sign();
    let stop = async {
        eventually("the request", async || imgwire.asked() == 1).await;
        gate.signal("-TERM");
    };
    let (status, ()) = futures_util::future::join(gate.ask(&token), stop).await;
    assert_eq!(status, Some(200));
    assert_eq!(gate.end().await.code(), Some(0));
}
