//! Where the config comes from: a file, standard input, or the environment.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::{
    helpers::{
        Emulator, Gate, ROUTE, SECRET, SERVER_API_KEY, SESSION_KEY, ServerKey, Token, env,
        eventually,
    },
    process::{PROGRAM, program, text},
    real_parts::blocks,
    redis_server::Redis,
};

const TEXT: &str = "IMGWIRE_GATE_CONFIG_TOML";

fn standard(folder: &Path) -> String {
    Gate::accepting(["app"]).config("https://api.imgwire.dev", folder)
}

/// Runs a command with a text as its standard input.
fn run_with_input(arguments: &[&str], input: &str) -> Output {
    let mut command = program(&[]);
    command.args(arguments).stdin(Stdio::piped());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn commands_read_the_config_from_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let config = standard(folder.path());
    let request = folder.path().join("request.json");
    fs::write(
        &request,
        json!({ "subject": { "id": "user_1" } }).to_string(),
    )
    .unwrap();
    let cases = folder.path().join("cases.toml");
    fs::write(
        &cases,
        "cases = [{ name = \"anyone\", expect = \"not_signed_in\" }]",
    )
    .unwrap();
    let (request, cases) = (request.to_str().unwrap(), cases.to_str().unwrap());
    for (arguments, expected) in [
        (&["check", "-"][..], "POST /api/imgwire/upload-token"),
        (
            &["check", "--config", "-"],
            "POST /api/imgwire/upload-token",
        ),
        (&["explain", "--config", "-", "--request", request], "allow"),
        (&["test", "--config", "-", cases], "1 passed, 0 failed"),
    ] {
        let output = run_with_input(arguments, &config);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        assert!(text(&output.stdout).contains(expected), "{output:?}");
    }
    for arguments in [
        &["check", "-"][..],
        &["doctor", "-"],
        &["serve", "--config", "-"],
    ] {
        let output = run_with_input(arguments, "[server]\nworkers = 0\n");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let error = text(&output.stderr);
        assert!(error.contains("<stdin>:2:11: server.workers: "), "{error}");
    }
}

#[test]
fn faults_of_a_config_in_the_environment_name_the_variable_as_the_file() {
    let run = |arguments: &[&str], config: &str| {
        let mut command = program(&[]);
        // The image sets this one, so the whole config wins.
        command.env("IMGWIRE_GATE_CONFIG", "/nowhere.toml");
        command.args(arguments).env(TEXT, config).output().unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let output = run(&["check"], &standard(folder.path()));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = run(&["check"], "[server]\n\nworkers = 0\n");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let error = text(&output.stderr);
    assert!(
        error.contains("IMGWIRE_GATE_CONFIG_TOML:3:11: server.workers: "),
        "{error}"
    );
    // An argument wins over both, and an empty variable counts as unset.
    for (arguments, config) in [(&["check", "/elsewhere.toml"][..], "[x]"), (&["check"], "")] {
        let output = run(arguments, config);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(
            text(&output.stderr).contains("where.toml: the file does not exist"),
            "{output:?}"
        );
    }
}

#[test]
fn without_any_config_the_ways_to_name_one_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program(&[]);
    let output = command.arg("check").current_dir(&folder).output().unwrap();
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    for part in ["config/default.toml", "--config", TEXT, "sandbox"] {
        assert!(error.contains(part), "{error}");
    }
}

/// A gate that was started with a command of its own.
struct Running {
    child: Child,
    log: std::path::PathBuf,
}

impl Running {
    fn start(mut command: Command, folder: &Path) -> Self {
        let log = folder.join("log");
        let child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
        Self { child, log }
    }

    fn lines(&self) -> Vec<Value> {
        let log = fs::read_to_string(&self.log).unwrap();
        log.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    async fn line(&self, message: &str) -> Value {
        let mut found = None;
        eventually(message, async || {
            let lines = self.lines().into_iter();
            found = lines.rev().find(|line| line["message"] == message);
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    async fn url(&self) -> String {
        let line = self.line("listening").await;
        format!("http://{}", line["address"].as_str().unwrap())
    }

    fn hang_up(&self) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-HUP", &id])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn ask(url: &str) -> u16 {
    let request = awc::Client::default().post(format!("{url}{ROUTE}"));
    let request = request.bearer_auth(Token::of("user_1").sign());
    request.send().await.unwrap().status().as_u16()
}

#[actix_web::test]
async fn a_gate_starts_with_environment_variables_only() {
    let imgwire = Emulator::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = Gate::accepting(["app"])
        .server("bind", "127.0.0.1:${PORT:-8080}")
        .set("identities.app.audience", ["${AUDIENCE}"])
        .config("${IMGWIRE_URL:-https://api.imgwire.dev}", folder.path());
    let mut command = Command::new(PROGRAM);
    command
        .env_clear()
        .current_dir(&folder)
        .env(TEXT, config)
        .env("PORT", "0")
        .env("AUDIENCE", "imgwire-gate")
        .env("IMGWIRE_URL", imgwire.url())
        .env("TEST_API_KEY", SERVER_API_KEY)
        .env("TEST_SECRET", SECRET)
        .env("TEST_SESSION_KEY", SESSION_KEY);
    let gate = Running::start(command, folder.path());
    assert_eq!(ask(&gate.url().await).await, 200);
}

#[actix_web::test]
async fn the_example_for_platforms_without_files_works() {
    let Some(redis) = Redis::here() else { return };
    let password = "the-password-of-the-gate";
    redis.run(&[
        "ACL",
        "SETUSER",
        "gate",
        "on",
        &format!(">{password}"),
        "~*",
        "&*",
        "+@all",
    ]);
    let imgwire = Emulator::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let base_url = format!(
        "[management]\nbind = \"127.0.0.1:0\"\n[imgwire]\nbase_url = \"{}\"\n",
        imgwire.url()
    );
    let script = blocks("docs/deployment.md", "bash").remove(0);
    let script = script
        .replace("[imgwire]\n", &base_url)
        .replace("rediss://", "redis://")
        .replace("\nimgwire-gate\n", "\nexec imgwire-gate\n");
    let mut command = Command::new("bash");
    let programs = Path::new(PROGRAM).parent().unwrap().display();
    command
        .args(["-c", &script])
        .current_dir(&folder)
        .env_clear()
        .env(
            "PATH",
            format!("{programs}:{}", std::env::var("PATH").unwrap()),
        )
        .env("PORT", "0")
        .env("APP_HOST", "app.example.com")
        .env("REDIS_HOST", redis.address())
        .env("REDIS_PASSWORD", password)
        .env("IMGWIRE_API_KEY", SERVER_API_KEY)
        .env("APP_JWT_SECRET", SECRET);
    let gate = Running::start(command, folder.path());
    let url = gate.url().await.replace("0.0.0.0", "127.0.0.1");
    eventually("a token", async || ask(&url).await == 200).await;
}

#[actix_web::test]
async fn a_reload_keeps_a_config_from_standard_input_and_reads_its_secrets_again() {
    let imgwire = Emulator::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    fs::write(&key, SERVER_API_KEY).unwrap();
    let config = Gate::accepting(["app"])
        .imgwire("retries", 0)
        .imgwire("api_key", json!({ "file": key }))
        .config(imgwire.url(), folder.path());
    let mut command = program(&[]);
    command.args(["--config", "-"]).stdin(Stdio::piped());
    let mut gate = Running::start(command, folder.path());
    let mut input = gate.child.stdin.take().unwrap();
    input.write_all(config.as_bytes()).unwrap();
    drop(input);
    let url = gate.url().await;
    assert_eq!(ask(&url).await, 200);

    imgwire.change(|scenario| scenario.server_keys = vec![ServerKey::new("sk_rotated")]);
    assert_eq!(ask(&url).await, 500);
    fs::write(&key, "sk_rotated").unwrap();
    gate.hang_up();
    gate.line("config reloaded").await;
    let told = "the config itself cannot be read again, only the files that it names";
    assert_eq!(gate.line(told).await["config"], "<stdin>");
    assert_eq!(ask(&url).await, 200);
}

#[test]
fn a_variable_may_name_the_source_of_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("api_key"), SERVER_API_KEY).unwrap();
    let config = Gate::accepting(["app"])
        .imgwire(
            "api_key",
            json!({ "file": "${CREDENTIALS_DIRECTORY}/api_key" }),
        )
        .session("key", env("${KEY_NAME:-TEST_SESSION_KEY}"))
        .config("https://api.imgwire.dev", folder.path());
    let mut command = program(&[]);
    command.arg("check").env(TEXT, config);
    let output = command
        .env("CREDENTIALS_DIRECTORY", folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
