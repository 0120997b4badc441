//! A gate in a process of its own, and the program.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::helpers::{
    EVENTS_SECRET, Emulator, Gate, ROUTE, SECRET, SERVER_API_KEY, SESSION_KEY, eventually, quota,
};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_imgwire-gate");

/// The program with the tests' secrets as its only environment.
pub(crate) fn program(wrapper: &[&str]) -> Command {
    let mut words = wrapper.iter().copied().chain([PROGRAM]);
    let mut command = Command::new(words.next().unwrap());
    command
        .args(words)
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap());
    command
        .env("TEST_API_KEY", SERVER_API_KEY)
        .env("TEST_SECRET", SECRET)
        .env("TEST_SESSION_KEY", SESSION_KEY)
        .env("TEST_EVENTS_SECRET", EVENTS_SECRET);
    command
}

/// A gate in its own process.
pub(crate) struct GateProcess {
    pub(crate) child: Child,
    log: PathBuf,
    stdout: PathBuf,
    url: String,
    management: String,
}

impl GateProcess {
    pub(crate) async fn start(config: &Path, wrapper: &[&str], level: &str) -> Self {
        Self::start_with(config, wrapper, level, &[]).await
    }

    pub(crate) async fn start_with(
        config: &Path,
        wrapper: &[&str],
        level: &str,
        options: &[&str],
    ) -> Self {
        let mut gate = Self::spawn(config, wrapper, level, options);
        eventually("the gate's start", async || {
            assert!(gate.child.try_wait().unwrap().is_none(), "{}", gate.log());
            let listening = gate
                .lines()
                .into_iter()
                .find(|line| line["message"] == "listening");
            listening.is_some_and(|line| {
                gate.url = format!("http://{}", line["address"].as_str().unwrap());
                gate.management = format!("http://{}", line["management"].as_str().unwrap());
                true
            })
        })
        .await;
        gate
    }

    /// Starts the program without waiting for the gate.
    pub(crate) fn spawn(config: &Path, wrapper: &[&str], level: &str, options: &[&str]) -> Self {
        let number = fastrand::u64(..);
        let log = config.with_extension(format!("{number}.log"));
        let stdout = config.with_extension(format!("{number}.out"));
        let child = program(wrapper)
            .args(["serve", "--config"])
            .arg(config)
            .args(options)
            .env("RUST_LOG", level)
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self {
            child,
            log,
            stdout,
            url: String::new(),
            management: String::new(),
        }
    }

    /// What it wrote on both streams.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap() + &self.log()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        self.log()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    pub(crate) fn decisions(&self) -> Vec<Value> {
        self.lines()
            .into_iter()
            .filter(|line| line["target"] == "decision")
            .collect()
    }

    /// The URL of its management listener.
    pub(crate) fn management(&self) -> &str {
        &self.management
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The URL of its public listener.
    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// Asks for a token; `None` if the gate does not answer.
    pub(crate) async fn ask(&self, token: &str) -> Option<u16> {
        Self::ask_at(&self.url, token).await
    }

    /// Asks the gate at `url` for a token; `None` if it does not answer.
    pub(crate) async fn ask_at(url: &str, token: &str) -> Option<u16> {
        let client = awc::Client::builder()
            .timeout(Duration::from_secs(20))
            .finish();
        let request = client.post(format!("{url}{ROUTE}"));
        let mut answer = request.bearer_auth(token).send().await.ok()?;
        answer.body().await.ok()?;
        Some(answer.status().as_u16())
    }

    pub(crate) async fn remaining(&self, token: &str) -> u64 {
        let client = awc::Client::default();
        let request = client.get(format!("{}{ROUTE}/allowance", self.url));
        let mut answer = request.bearer_auth(token).send().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.body().await.unwrap()).unwrap();
        answer["limits"][0]["remaining"].as_u64().unwrap()
    }

    /// A field of its `/proc/<pid>/status` that is a number of kilobytes, in bytes.
    pub(crate) fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field));
        let kilobytes = line.unwrap().split_whitespace().nth(1).unwrap();
        kilobytes.parse::<u64>().unwrap() * 1024
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status();
        assert!(status.unwrap().success());
    }

    pub(crate) async fn end(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the gate's end", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }
}

impl Drop for GateProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A gate with one quota per month and user.
pub(crate) fn gate_with_quota(limit: u64) -> Gate {
    let monthly = quota().per(["user"]).limit(limit).window("month");
    Gate::accepting(["app"])
        .policy("quota", monthly)
        .chain(["signed-in", "quota"])
        .imgwire("retries", 0)
}

/// Writes the config of such a gate into a new folder.
pub(crate) fn config_with_quota(imgwire: &Emulator, limit: u64) -> (TempDir, PathBuf) {
    write_config(&gate_with_quota(limit), imgwire.url())
}

/// Writes the config of a gate into a new folder.
pub(crate) fn write_config(gate: &Gate, base_url: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = gate.write(base_url, folder.path());
    (folder, path)
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    program(&[]).args(arguments).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
