//! A gate in its own process, with checks of its log and readiness.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    helpers::{Emulator, Gate, ROUTE, Token, eventually},
    process::GateProcess,
};

/// How long a store must stay down.
const WATCHED: Duration = Duration::from_secs(3);

pub(crate) struct Watched {
    gate: GateProcess,
    pub(crate) folder: TempDir,
    _imgwire: Emulator,
}

impl Watched {
    pub(crate) async fn start(gate: &Gate) -> Self {
        Self::start_by(gate, &[]).await
    }

    /// The same, started by another program.
    pub(crate) async fn start_by(gate: &Gate, wrapper: &[&str]) -> Self {
        let imgwire = Emulator::start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = gate.write(imgwire.url(), folder.path());
        Self {
            gate: GateProcess::start_with(&config, wrapper, "info", &[]).await,
            folder,
            _imgwire: imgwire,
        }
    }

    /// Its process.
    pub(crate) fn id(&self) -> String {
        self.gate.id().to_string()
    }

    /// Asks for a token in a workspace, as `user`.
    pub(crate) async fn ask_as(&self, user: &str) -> u16 {
        let client = awc::Client::builder().timeout(Duration::from_secs(20));
        let request = client.finish().post(format!("{}{ROUTE}", self.gate.url()));
        let request = request.bearer_auth(Token::of(user).sign());
        let answer = request.send_json(&json!({ "workspace": "ws_1" })).await;
        answer.unwrap().status().as_u16()
    }

    pub(crate) async fn ask(&self) -> u16 {
        self.ask_as("user_1").await
    }

    pub(crate) async fn is_ready(&self) -> bool {
        let url = format!("{}/readyz", self.gate.management());
        let answer = awc::Client::default().get(url).send().await.unwrap();
        answer.status() == 200
    }

    /// What the management listener answers.
    async fn show(&self, path: &str) -> Vec<u8> {
        let url = format!("{}{path}", self.gate.management());
        let mut answer = awc::Client::default().get(url).send().await.unwrap();
        answer.body().await.unwrap().to_vec()
    }

    /// What `/readyz` names as degraded.
    pub(crate) async fn degraded(&self) -> Vec<String> {
        let readiness: Value = serde_json::from_slice(&self.show("/readyz").await).unwrap();
        serde_json::from_value(readiness["degraded"].clone()).unwrap()
    }

    /// The value of the line of `/metrics` with this name and these labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let metrics = String::from_utf8(self.show("/metrics").await).unwrap();
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(name));
        value.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    /// Reads the config again.
    pub(crate) fn reload(&self, gate: &Gate) {
        gate.write(self._imgwire.url(), self.folder.path());
        self.gate.signal("-HUP");
    }

    /// Waits until it is ready.
    pub(crate) async fn ready(&self) {
        eventually("the store", async || self.is_ready().await).await;
    }

    /// The lines with this message.
    pub(crate) fn lines(&self, message: &str) -> Vec<Value> {
        let lines = self.gate.lines().into_iter();
        lines.filter(|line| line["message"] == message).collect()
    }

    /// Asserts that the log never reported the store as down.
    pub(crate) fn was_never_down(&self) {
        let lines = self.lines("the store is down");
        assert!(lines.is_empty(), "{lines:?}");
    }

    /// Asserts that the store stays down, and that the log reports it once with this reason.
    pub(crate) async fn stays_down(&self, reason: &str) {
        eventually("the news", async || {
            !self.lines("the store is down").is_empty()
        })
        .await;
        let began = Instant::now();
        while began.elapsed() < WATCHED {
            assert_eq!(self.ask().await, 500);
            assert!(!self.is_ready().await);
        }
        let lines = self.lines("the store is down");
        let [line] = &lines[..] else {
            panic!("{lines:?}")
        };
        assert_eq!(line["level"], "ERROR");
        let said = line["reason"].as_str().unwrap();
        assert!(said.contains(reason), "{said}");
        assert_eq!(self.lines("the store is back").len(), 0);
    }

    /// Waits until the store is back, and asserts that the log reports it once.
    pub(crate) async fn comes_back(&self) {
        self.ready().await;
        eventually("a token", async || self.ask().await == 200).await;
        // The log's thread writes a moment later.
        eventually("the news", async || {
            !self.lines("the store is back").is_empty()
        })
        .await;
        assert_eq!(self.lines("the store is down").len(), 1);
        assert_eq!(self.lines("the store is back").len(), 1);
    }
}
