//! Restarts of gates behind a proxy.

use std::{fs, path::PathBuf, time::Duration};

use futures_util::future::join_all;

use crate::{
    deployment::deploy,
    helpers::{Emulator, Gate, ROUTE, Token, eventually},
    process::GateProcess,
    real_parts::{Running, are_here, free_port},
};

/// Three gates on their own addresses, with the same two ports.
struct Fleet {
    imgwire: Emulator,
    folder: tempfile::TempDir,
    port: u16,
    management: u16,
    gates: Vec<GateProcess>,
}

impl Fleet {
    async fn start() -> Self {
        let mut fleet = Self {
            imgwire: Emulator::start().unwrap(),
            folder: tempfile::tempdir().unwrap(),
            port: free_port(),
            management: free_port(),
            gates: Vec::new(),
        };
        for number in 1..=3 {
            let gate = fleet.gate(number).await;
            fleet.gates.push(gate);
        }
        fleet
    }

    /// The gate at 127.0.0.`number`, with the default shutdown settings.
    async fn gate(&self, number: usize) -> GateProcess {
        let config = Gate::accepting(["app"])
            .server("bind", format!("127.0.0.{number}:{}", self.port))
            .server("shutdown_delay", "1s")
            .management("bind", format!("127.0.0.{number}:{}", self.management))
            .config(self.imgwire.url(), self.folder.path());
        let path = self.folder.path().join(format!("gate-{number}.toml"));
        fs::write(&path, config).unwrap();
        GateProcess::start_with(&path, &[], "warn,imgwire_gate=info", &[]).await
    }

    /// A config of `deploy` or the documentation, with these gates in it.
    fn config(&self, text: &str) -> PathBuf {
        let mut text = text.to_owned();
        for number in 1..=3 {
            let name = format!("gate-{number}:8080");
            text = text.replace(&name, &format!("127.0.0.{number}:{}", self.port));
        }
        let path = self.folder.path().join("proxy");
        let text = text.replace("9090", &self.management.to_string());
        fs::write(&path, text).unwrap();
        path
    }
}

/// Restarts each of three gates in turn, while callers keep asking through the proxy on `port`: every request gets a
/// token.
async fn no_request_fails_during_restarts(fleet: &mut Fleet, port: u16) {
    let url = format!("http://127.0.0.1:{port}");
    let token = Token::of("user_1").sign();
    eventually("the proxy", async || {
        GateProcess::ask_at(&url, &token).await == Some(200)
    })
    .await;
    let client = awc::Client::builder()
        .timeout(Duration::from_secs(20))
        .finish();
    let is_over = std::cell::Cell::new(false);
    let callers = (0..12).map(|_| async {
        let mut answers = Vec::new();
        while !is_over.get() {
            let request = client.post(format!("{url}{ROUTE}"));
            let answer = request.bearer_auth(&token).send().await;
            answers.push(answer.map_or(0, |answer| answer.status().as_u16()));
        }
        answers
    });
    let restarts = async {
        for number in 1..=3 {
            let mut gate = fleet.gates.remove(0);
            gate.signal("-TERM");
            assert_eq!(gate.end().await.code(), Some(0));
            let again = fleet.gate(number).await;
            fleet.gates.push(again);
            // The proxy finds the new gate before the next one stops.
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
        is_over.set(true);
    };
    let (answers, ()) = futures_util::future::join(join_all(callers), restarts).await;
    let answers = answers.concat();
    let failed: Vec<_> = answers.iter().filter(|status| **status != 200).collect();
    assert!(failed.is_empty(), "{failed:?} of {}", answers.len());
    assert!(answers.len() > 100, "{}", answers.len());
}

#[actix_web::test]
async fn no_request_fails_while_gates_restart_behind_caddy() {
    if !are_here(&["caddy"]) {
        return;
    }
    let mut fleet = Fleet::start().await;
    let port = free_port();
    let text = fs::read_to_string(deploy("Caddyfile")).unwrap();
    let config = fleet.config(&text.replace("\n:8080 {", &format!("\nhttp://127.0.0.1:{port} {{")));
    let arguments = [
        "run",
        "--adapter",
        "caddyfile",
        "--config",
        config.to_str().unwrap(),
    ];
    let _caddy = Running::start("caddy", &arguments, &config);
    no_request_fails_during_restarts(&mut fleet, port).await;
}

#[actix_web::test]
async fn no_request_fails_while_gates_restart_behind_haproxy() {
    if !are_here(&["haproxy"]) {
        return;
    }
    let mut fleet = Fleet::start().await;
    let port = free_port();
    let text = fs::read_to_string(deploy("haproxy.cfg")).unwrap();
    let config = fleet.config(&text.replace("bind :80\n", &format!("bind 127.0.0.1:{port}\n")));
    let arguments = ["-db", "-f", config.to_str().unwrap()];
    let _haproxy = Running::start("haproxy", &arguments, &config);
    no_request_fails_during_restarts(&mut fleet, port).await;
}
