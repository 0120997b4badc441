//! The program as an operator runs it: its command line, its signals, its log, and what a crash leaves.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use imgwire_gate::sandbox::emulator::{Emulator, Misbehaviour, SERVER_API_KEY};
use serde_json::Value;
use tempfile::TempDir;

use crate::helpers::{ROUTE, Recipe, SECRET, SESSION_KEY, Token, eventually};

const PROGRAM: &str = env!("CARGO_BIN_EXE_imgwire-gate");

/// The program with the tests' secrets, and nothing else of this environment.
fn program(wrapper: &[&str]) -> Command {
    let mut words = wrapper.iter().copied().chain([PROGRAM]);
    let mut command = Command::new(words.next().unwrap());
    command
        .args(words)
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap());
    command
        .env("TEST_API_KEY", SERVER_API_KEY)
        .env("TEST_SECRET", SECRET)
        .env("TEST_SESSION_KEY", SESSION_KEY);
    command
}

/// A gate in a process of its own.
pub(crate) struct GateProcess {
    pub(crate) child: Child,
    log: PathBuf,
    url: String,
    management: String,
}

impl GateProcess {
    async fn start(config: &Path, wrapper: &[&str], level: &str) -> Self {
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

    /// Starts the program, and does not wait for the gate.
    pub(crate) fn spawn(config: &Path, wrapper: &[&str], level: &str, options: &[&str]) -> Self {
        let log = config.with_extension(format!("{}.log", fastrand::u64(..)));
        let child = program(wrapper)
            .args(["serve", "--config"])
            .arg(config)
            .args(options)
            .env("RUST_LOG", level)
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self {
            child,
            log,
            url: String::new(),
            management: String::new(),
        }
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

    /// Where its management listener is.
    pub(crate) fn management(&self) -> &str {
        &self.management
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// Asks for a token; `None` when the gate is gone.
    pub(crate) async fn ask(&self, token: &str) -> Option<u16> {
        Self::ask_at(&self.url, token).await
    }

    /// Asks the gate at `url` for a token; `None` when it is gone.
    pub(crate) async fn ask_at(url: &str, token: &str) -> Option<u16> {
        let client = awc::Client::builder()
            .timeout(Duration::from_secs(20))
            .finish();
        let request = client.post(format!("{url}{ROUTE}"));
        let mut answer = request.bearer_auth(token).send().await.ok()?;
        answer.body().await.ok()?;
        Some(answer.status().as_u16())
    }

    async fn remaining(&self, token: &str) -> u64 {
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

/// A config file with one quota, in a folder of its own.
fn config_with_quota(imgwire: &Emulator, limit: u64) -> (TempDir, PathBuf) {
    let policies = format!(
        r#"
        [policies.signed-in]
        kind = "signed_in"
        accept = ["app"]
        [policies.quota]
        kind = "quota"
        per = ["user"]
        limit = {limit}
        window = "month"
        store = "main"
        "#
    );
    let recipe = Recipe {
        policies,
        chain: r#"["signed-in", "quota"]"#.into(),
        imgwire: "retries = 0".into(),
        ..Recipe::default()
    };
    write_config(&recipe, imgwire.url())
}

pub(crate) fn write_config(recipe: &Recipe, base_url: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.toml");
    fs::write(&path, recipe.config(base_url, folder.path())).unwrap();
    (folder, path)
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    program(&[]).args(arguments).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[actix_web::test]
async fn killed_again_and_again_it_never_issues_a_token_too_many_and_loses_only_what_was_in_flight()
{
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
async fn a_second_process_on_the_same_file_is_refused() {
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

    // Another name of the same file is no way around it.
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(folder.path().join("gate.db"), &link).unwrap();
    let other = fs::read_to_string(&config)
        .unwrap()
        .replace("gate.db", "link.db");
    let other_config = folder.path().join("other.toml");
    fs::write(&other_config, other).unwrap();
    let output = run(&["--config", other_config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
}

#[actix_web::test]
async fn a_full_disk_is_500_and_the_gate_recovers_when_there_is_room() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = config_with_quota(&imgwire, 1000);
    // A limit on the size of files does to the store what a full disk does; its signal is to be ignored.
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
async fn it_serves_within_a_tenth_of_a_second_or_so() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = config_with_quota(&imgwire, 10);
    // The best of several: other tests run beside this one.
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
async fn sigterm_finishes_what_runs_and_exits_0() {
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

#[actix_web::test]
async fn one_line_a_decision_tells_the_operator_everything() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = config_with_quota(&imgwire, 1);
    let gate = GateProcess::start(&config, &[], "info").await;
    let token = Token::of("user_1").sign();
    assert_eq!(gate.ask(&token).await, Some(200));
    assert_eq!(gate.ask(&token).await, Some(429));
    eventually("two lines", async || gate.decisions().len() == 2).await;
    let lines = gate.decisions();
    let (issued, denied) = (&lines[0], &lines[1]);
    assert_eq!(issued["outcome"], "issued");
    assert_eq!(issued["status"], 200);
    assert_eq!(issued["route"], ROUTE);
    assert_eq!(issued["identity"], "app");
    assert_eq!(issued["subject"], "user_1");
    assert_eq!(issued["upstream_attempts"], 1);
    assert!(issued["upstream_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(issued["request_id"].as_str().unwrap().len(), 36);
    assert_eq!(denied["outcome"], "denied");
    assert_eq!(denied["code"], "quota_exhausted");
    assert_eq!(denied["policy"], "quota");
    assert_eq!(denied["reason"], "the quota is used up");
}

#[actix_web::test]
async fn the_log_names_the_workspace_of_a_found_membership_and_the_reason_of_a_rule() {
    let imgwire = Emulator::start().unwrap();
    let recipe = Recipe {
        policies: r#"
            [policies.signed-in]
            kind = "signed_in"
            accept = ["app"]
            [policies.member]
            kind = "workspace_member"
            claim = "workspaces"
            mode = "observe"
            [policies.rule]
            kind = "expression"
            allow = "subject.claims.plan == 'pro'"
        "#
        .to_owned(),
        chain: r#"["signed-in", "member", "rule"]"#.to_owned(),
        ..Recipe::default()
    };
    let (_folder, config) = write_config(&recipe, imgwire.url());
    let gate = GateProcess::start(&config, &[], "info").await;
    let paying = Token::of("user_1").with("plan", "pro".into());
    let cases = [
        ("ws_1", &paying, "ws_1".into(), Value::Null),
        // It is observed not to be a member, and gets a token that is for no workspace.
        ("ws_9", &paying, Value::Null, Value::Null),
        (
            "ws_9",
            &Token::of("user_1"),
            "ws_9".into(),
            "the expression cannot be evaluated: there is no `plan`".into(),
        ),
    ];
    for (workspace, token, ..) in &cases {
        let client = awc::Client::default();
        let request = client.post(format!("{}{ROUTE}", gate.url));
        let request = request.bearer_auth(token.sign());
        let request = request.insert_header(("x-workspace-id", *workspace));
        request.send().await.unwrap().body().await.unwrap();
    }
    // Lines without a status tell what was overlooked.
    let decisions = || {
        let mut lines = gate.decisions();
        lines.retain(|line| line["status"].is_u64());
        lines
    };
    eventually("the lines", async || decisions().len() == cases.len()).await;
    for (line, (_, _, workspace, reason)) in decisions().iter().zip(&cases) {
        assert_eq!(
            (&line["workspace"], &line["reason"]),
            (workspace, reason),
            "{line}"
        );
    }
}

#[actix_web::test]
async fn a_source_that_names_no_workspace_is_warned_of_once() {
    let imgwire = Emulator::start().unwrap();
    for (columns, warnings) in [("role", 1), ("role, workspace_id", 0)] {
        let app = tempfile::tempdir().unwrap();
        let app = app.path().join("app.db");

        let database = rusqlite::Connection::open(&app).unwrap();
        let table = "create table members (user_id text, workspace_id text, role text);
                     insert into members values ('user_1', 'ws_1', 'owner')";
        database.execute_batch(table).unwrap();
        let recipe = Recipe {
            more: format!("[stores.app]\nurl = \"sqlite:{}\"", app.display()),
            policies: format!(
                "[policies.signed-in]\nkind = \"signed_in\"\naccept = [\"app\"]\n[policies.member]\n\
                 kind = \"workspace_member\"\nstore = \"app\"\n\
                 query = \"select {columns} from members where user_id = $1 and workspace_id = $2\""
            ),
            chain: r#"["signed-in", "member"]"#.to_owned(),
            ..Recipe::default()
        };
        let (_folder, config) = write_config(&recipe, imgwire.url());
        let gate = GateProcess::start(&config, &[], "info").await;
        for user in ["user_1", "user_1", "user_2"] {
            let client = awc::Client::default();
            let request = client.post(format!("{}{ROUTE}", gate.url));
            let request = request.bearer_auth(Token::of(user).sign());
            request
                .insert_header(("x-workspace-id", "ws_1"))
                .send()
                .await
                .unwrap();
        }
        eventually("the lines", async || gate.decisions().len() == 3).await;
        let mut lines = gate.lines();
        lines.retain(|line| {
            line["level"] == "WARN" && line["target"] == "imgwire_gate::gate::ports"
        });
        assert_eq!(lines.len(), warnings, "{columns}: {lines:?}");
        if let Some(line) = lines.first() {
            assert_eq!(line["policy"], "member");
            assert!(
                line["message"]
                    .as_str()
                    .unwrap()
                    .contains("names no workspace"),
                "{line}"
            );
        }
    }
}

#[actix_web::test]
async fn no_secret_is_in_any_output_even_at_trace() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = config_with_quota(&imgwire, 3);
    let gate = GateProcess::start(&config, &[], "trace").await;
    let token = Token::of("user_1").sign();
    gate.ask(&token).await;
    gate.ask("nonsense").await;
    imgwire.misbehave(Some(Misbehaviour::Status(401, None)));
    gate.ask(&token).await;
    let client = awc::Client::default();
    let session = client
        .post(format!("{}/api/imgwire/session", gate.url))
        .bearer_auth(&token);
    let session = session.send().await.unwrap();
    let cookie = session
        .headers()
        .get("set-cookie")
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let cookie = cookie.split(['=', ';']).nth(1).unwrap();
    let signature = token.rsplit('.').next().unwrap();
    eventually("the log", async || gate.decisions().len() == 3).await;
    let log = gate.log();
    for secret in [
        SERVER_API_KEY,
        SECRET,
        SESSION_KEY,
        signature,
        cookie,
        "ut_1_",
    ] {
        assert!(!log.contains(secret), "{secret}");
    }
    assert!(log.contains("\"level\":\"DEBUG\"") || log.contains("\"level\":\"TRACE\""));
}

#[actix_web::test]
async fn health_says_whether_the_gate_is_ready() {
    let imgwire = Emulator::start().unwrap();
    let (folder, config) = config_with_quota(&imgwire, 3);
    let gate = GateProcess::start(&config, &[], "info").await;
    let port = gate.management.rsplit(':').next().unwrap();
    // The port is known only now; health reads no other section, and needs no secret.
    let running = folder.path().join("running.toml");
    fs::write(&running, format!("[management]\nbind = \"0.0.0.0:{port}\"")).unwrap();
    let health = || {
        Command::new(PROGRAM)
            .arg("health")
            .arg("--config")
            .arg(&running)
            .output()
            .unwrap()
    };
    assert_eq!(health().status.code(), Some(0));
    drop(gate);
    let output = health();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("does not answer"));
}

#[test]
fn faults_of_the_config_are_exit_code_2_for_check_and_for_serve() {
    let recipe = Recipe {
        server: "unknown = 1".into(),
        ..Recipe::default()
    };
    let (_folder, config) = write_config(&recipe, "nonsense");
    for command in ["check", "serve"] {
        let output = run(&[command, "--config", config.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2));
        let faults = text(&output.stderr);
        assert!(faults.contains("gate.toml:5:"), "{faults}");
        assert!(
            faults.contains("server.unknown") && faults.contains("imgwire.base_url"),
            "{faults}"
        );
    }
    let output = run(&["check", "--config", "/nowhere.toml"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_config_is_also_named_by_the_environment() {
    let (_folder, config) = write_config(&Recipe::default(), "https://api.imgwire.dev");
    let output = program(&[])
        .arg("check")
        .env("IMGWIRE_GATE_CONFIG", &config)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn schema_prints_a_json_schema_that_knows_every_section() {
    let output = run(&["schema"]);
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    for section in [
        "server",
        "management",
        "telemetry",
        "imgwire",
        "session",
        "stores",
        "identities",
        "policies",
        "routes",
    ] {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
}

#[actix_web::test]
async fn the_sandboxs_curl_line_gets_a_token() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut child = program(&[])
        .arg("sandbox")
        .stdout(log.reopen().unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    eventually("the curl line", async || {
        let output = fs::read_to_string(log.path()).unwrap();
        line = output
            .lines()
            .find(|line| line.starts_with("curl "))
            .unwrap_or_default()
            .to_owned();
        !line.is_empty() && output.ends_with('\n')
    })
    .await;
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(answer["uploadToken"].is_string(), "{answer}");
}

/// Runs the program to its end.
fn output(arguments: &[&str]) -> Output {
    program(&[]).args(arguments).output().unwrap()
}

/// A config with the usual rules, and files beside it.
fn config_and(files: &[(&str, &str)]) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.toml");
    let config = Recipe::default().config("https://api.imgwire.dev", folder.path());
    fs::write(&path, config).unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn explain_prints_what_each_policy_says_to_a_described_request() {
    let request = r#"{
        "route": "/api/imgwire/upload-token",
        "subject": { "id": "user_1", "claims": { "workspaces": ["ws_1"] } },
        "workspace": "ws_9"
    }"#;
    let (folder, config) = config_and(&[
        ("request.json", request),
        ("odd.json", r#"{"who": 1}"#),
        ("line.json", r#"{"token": "a\nb"}"#),
    ]);
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let explained = output(&[
        "explain",
        "--config",
        &config,
        "--request",
        &file("request.json"),
    ]);
    assert_eq!(explained.status.code(), Some(0), "{explained:?}");
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(
        text.starts_with("POST /api/imgwire/upload-token: deny, 403 workspace_forbidden\n"),
        "{text}"
    );
    assert!(text.contains("1. signed-in (signed_in): allow"), "{text}");
    assert!(
        text.contains("2. member (workspace_member): deny: the subject is no member"),
        "{text}"
    );
    for name in ["odd.json", "line.json", "absent.json"] {
        let refused = output(&["explain", "--config", &config, "--request", &file(name)]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains(name));
    }
}

#[test]
fn test_names_the_cases_that_differ() {
    let good = r#"
        [[cases]]
        name = "a member may"
        subject = { id = "user_1", claims = { workspaces = ["ws_1"] } }
        expect = "allow"
        [[cases]]
        name = "a stranger may not"
        subject = { id = "user_1", claims = { workspaces = ["ws_1"] } }
        workspace = "ws_9"
        file = { name = "me.png", mimeType = "image/png", size = 1 }
        expect = "workspace_forbidden"
        [[cases]]
        name = "nobody may not"
        expect = "not_signed_in"
    "#;
    let bad = good.replace("expect = \"allow\"", "expect = \"quota_exhausted\"");
    let odd = good.replace("workspace = \"ws_9\"", "workspce = \"ws_9\"");
    let (folder, config) =
        config_and(&[("good.toml", good), ("bad.toml", &bad), ("odd.toml", &odd)]);
    let run = |name: &str| {
        let path = folder.path().join(name);
        let output = output(&["test", "--config", &config, path.to_str().unwrap()]);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    assert_eq!(
        run("good.toml"),
        (Some(0), "3 passed, 0 failed\n".into(), String::new())
    );
    let (code, out, err) = run("bad.toml");
    assert_eq!(
        (code, out.as_str()),
        (Some(1), "2 passed, 1 failed\n"),
        "{err}"
    );
    assert!(
        err.contains("a member may: expected quota_exhausted, found"),
        "{err}"
    );
    let (code, _, err) = run("odd.toml");
    assert_eq!(code, Some(2));
    assert!(err.contains("workspce"), "{err}");
    assert!(
        !folder.path().join("gate.db").exists(),
        "nothing is counted"
    );
}
