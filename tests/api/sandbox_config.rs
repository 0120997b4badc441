//! `sandbox --config`: the user's own config with the emulator in Imgwire's place; and the sandbox's ports.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use actix_web::{http::Method, web};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    helpers::{Answer, CLIENT_KEY, Gate, ROUTE, Request, Token, env, rate_limit},
    process::{program, run, text, write_config},
    real_parts::{are_here, blocks, browser, free_port},
    signals::pipe,
};

/// A sandbox that runs; it ends when it is dropped.
pub(crate) struct OwnSandbox {
    process: Child,
    gate: String,
    imgwire: String,
    /// What it printed, up to the line that gets a token.
    lines: Vec<String>,
    folder: TempDir,
}

impl OwnSandbox {
    /// Runs a config with fixed ports.
    pub(crate) fn start(gate: &Gate) -> Self {
        let (folder, config) = write_config(gate, "https://api.imgwire.dev");
        let config = config.to_str().unwrap().to_owned();
        Self::with(&["--config", &config], folder)
    }

    fn with(arguments: &[&str], folder: TempDir) -> Self {
        let (port, imgwire_port) = (free_port(), free_port());
        let mut process = program(&[])
            .arg("sandbox")
            .args(arguments)
            .args(["--port", &port.to_string()])
            .args(["--imgwire-port", &imgwire_port.to_string()])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut lines = Vec::new();
        while !lines
            .last()
            .is_some_and(|line: &String| line.starts_with("curl "))
        {
            let line = output.next().expect("the sandbox prints a line with curl");
            lines.push(line.unwrap());
        }
        // A thread reads the rest, so that the process can write it.
        std::thread::spawn(move || output.count());
        Self {
            process,
            gate: format!("http://127.0.0.1:{port}"),
            imgwire: format!("http://127.0.0.1:{imgwire_port}"),
            lines,
            folder,
        }
    }

    /// The address of the playground, with its key.
    pub(crate) fn page(&self) -> &str {
        let mut lines = self.lines.iter();
        let page = lines.find_map(|line| line.strip_prefix("playground "));
        page.expect("the sandbox says where its page is")
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("gate.toml")
    }

    fn curl(&self) -> &str {
        self.lines.last().unwrap()
    }

    fn request(&self, method: Method, url: &str) -> Request {
        Request(awc::Client::default().request(method, url))
    }

    fn ask(&self) -> Request {
        self.request(Method::POST, &format!("{}{ROUTE}", self.gate))
    }

    /// Uploads with a token; returns the answer to the first step.
    async fn upload(&self, token: &Answer) -> Answer {
        let token = token.json["uploadToken"].as_str().unwrap();
        let url = format!(
            "{}/api/v1/images/standard_upload?upload_token={token}",
            self.imgwire
        );
        let request = self.request(Method::POST, &url).bearer(CLIENT_KEY);
        request.json(&json!({ "file_name": "a.png" })).await
    }
}

impl Drop for OwnSandbox {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A config whose Server API Key is not set on this machine.
fn without_api_key() -> Gate {
    Gate::standard()
        .imgwire("api_key", env("UNSET_API_KEY"))
        .imgwire("environment_id", "00000000-0000-4000-8000-000000000042")
        .server("bind", "0.0.0.0:8080")
        .session("cookie", json!({ "name": "session", "secure": false }))
}

async fn shell(line: String) -> Value {
    let shell = move || Command::new("sh").args(["-c", &line]).output().unwrap();
    let output = web::block(shell).await.unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[actix_web::test]
async fn a_config_of_ones_own_runs_with_the_emulator_in_place_of_imgwire() {
    let sandbox = OwnSandbox::start(&without_api_key());
    sandbox
        .ask()
        .send()
        .await
        .assert_error(401, "not_signed_in");
    let token = sandbox
        .ask()
        .bearer(&Token::of("user_1").sign())
        .send()
        .await;
    token.assert_token();
    assert_eq!(sandbox.upload(&token).await.status, 200);
    // The page needs the key that only the sandbox prints.
    let page = sandbox.request(Method::GET, &format!("{}/", sandbox.gate));
    let answer = page.send().await;
    assert_eq!((answer.status.as_u16(), answer.code()), (403, "cross_site"));
    let page = sandbox.request(Method::GET, sandbox.page());
    assert_eq!(page.send().await.status, 200);
}

#[actix_web::test]
async fn the_curl_line_gets_a_token_once_it_has_a_credential() {
    let sandbox = OwnSandbox::start(&without_api_key());
    assert!(
        sandbox
            .lines
            .iter()
            .any(|line| line.contains("(replace YOUR_CREDENTIAL: "))
    );
    let line = sandbox.curl();
    assert_eq!(shell(line.to_owned()).await["code"], "invalid_credentials");
    let token = Token::of("user_1").sign();
    let answer = shell(line.replace("YOUR_CREDENTIAL", &token)).await;
    assert!(answer["uploadToken"].is_string(), "{answer}");

    // A route that accepts anyone needs no credential.
    let gate = Gate::bare()
        .policy("all", rate_limit().per([""; 0]).limit(9))
        .chain(["all"]);
    let sandbox = OwnSandbox::start(&gate);
    let answer = shell(sandbox.curl().to_owned()).await;
    assert!(answer["uploadToken"].is_string(), "{answer}");
}

#[actix_web::test]
async fn pages_of_this_machine_may_call_it_from_any_port() {
    let sandbox = OwnSandbox::start(&without_api_key());
    for (origin, is_allowed) in [
        ("http://localhost:5173", true),
        ("http://127.0.0.1:3000", true),
        ("http://localhost", true),
        ("https://localhost:5173", false),
        ("http://localhost.evil.example:5173", false),
        ("http://192.0.2.7:5173", false),
    ] {
        let preflight = sandbox.request(Method::OPTIONS, &format!("{}{ROUTE}", sandbox.gate));
        let preflight = preflight.header("origin", origin);
        let preflight = preflight
            .header("access-control-request-method", "POST")
            .send()
            .await;
        let answer = sandbox.ask().header("origin", origin).send().await;
        for answer in [preflight, answer] {
            let allowed = answer.header("access-control-allow-origin");
            assert_eq!(allowed, if is_allowed { origin } else { "" }, "{answer:?}");
            let credentials = answer.header("access-control-allow-credentials");
            assert_eq!(
                credentials,
                if is_allowed { "true" } else { "" },
                "{answer:?}"
            );
        }
    }
}

#[actix_web::test]
async fn the_api_key_may_be_written_in_any_form_and_other_faults_keep_their_lines() {
    let (folder, path) = write_config(&Gate::standard(), "https://api.imgwire.dev");
    let config = fs::read_to_string(&path).unwrap();
    let section = "[imgwire.api_key]\nenv = \"TEST_API_KEY\"\n";
    let inline = |text: &str| {
        let rest = config.replace(section, "");
        let (before, after) = rest.split_once("[imgwire]\n").unwrap();
        format!("{before}[imgwire]\n{text}\n{after}")
    };
    assert!(config.contains(section), "{config}");
    let missing = folder.path().join("missing");
    let missing = missing.display();
    for text in [
        config.replace("TEST_API_KEY", "UNSET_API_KEY"),
        config.replace("env = \"TEST_API_KEY\"", &format!("file = '{missing}'")),
        inline("api_key = { env = \"UNSET_API_KEY\" }"),
        inline("api_key.file = \"/nowhere\""),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("gate.toml"), &text).unwrap();
        let sandbox = OwnSandbox::with(&["--config", "gate.toml"], folder);
        let token = sandbox
            .ask()
            .bearer(&Token::of("user_1").sign())
            .send()
            .await;
        token.assert_token();

        let faulty = format!("{text}\n[nonsense]\n");
        let line = faulty.lines().count();
        fs::write(&path, faulty).unwrap();
        let output = run(&["sandbox", "--config", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2));
        let faults = self::text(&output.stderr);
        assert!(faults.contains(&format!("gate.toml:{line}:")), "{faults}");
        assert_eq!(faults.lines().count(), 1, "{faults}");
    }
}

#[actix_web::test]
async fn a_config_from_a_pipe_is_read_only_once() {
    let (folder, path) = write_config(&without_api_key(), "https://api.imgwire.dev");
    let text = fs::read_to_string(path).unwrap();
    let pipe = pipe(folder.path());
    let config = pipe.to_str().unwrap().to_owned();
    std::thread::spawn(move || fs::write(pipe, text));
    let sandbox = OwnSandbox::with(&["--config", &config], folder);
    let (base, key) = sandbox.page().split_once("/?key=").unwrap();
    let call = |method: Method, path: &str| {
        let request = sandbox.request(method, &format!("{base}/playground/{path}"));
        request.header("x-playground-key", key)
    };
    let state = call(Method::GET, "state").send().await.json;
    assert_eq!(state["config"]["isFile"], false);
    assert_eq!(state["config"]["hasChangedOnDisk"], false);
    let reload = json!({ "apply": true });
    let answer = call(Method::POST, "config").json(&reload).await;
    assert_eq!(answer.json["applied"], true);
}

#[test]
fn a_config_without_an_api_key_is_still_faulty() {
    let gate = Gate::standard().without("imgwire.api_key");
    let (_folder, path) = write_config(&gate, "https://api.imgwire.dev");
    let output = run(&["sandbox", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("imgwire.api_key"));
    let output = run(&["sandbox", "--config", "/nowhere.toml"]);
    assert_eq!(output.status.code(), Some(2));
}

#[actix_web::test]
async fn the_demo_has_fixed_ports_too() {
    let sandbox = OwnSandbox::with(&[], tempfile::tempdir().unwrap());
    let playground = format!("playground {}/?key=", sandbox.gate);
    assert!(
        sandbox
            .lines
            .iter()
            .any(|line| line.starts_with(&playground))
    );
    let answer = shell(sandbox.curl().to_owned()).await;
    let token = Answer {
        json: answer,
        ..sandbox.ask().send().await
    };
    assert_eq!(sandbox.upload(&token).await.status, 200);
    // Pages on other ports read nothing.
    let answer = sandbox
        .ask()
        .header("origin", "http://localhost:3000")
        .send()
        .await;
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

#[actix_web::test]
async fn the_command_of_the_guide_switches_the_emulator() {
    let sandbox = OwnSandbox::start(&without_api_key());
    let blocks = blocks("docs/start.md", "text");
    let command = blocks.iter().find(|block| block.contains("/emulator"));
    let command = command
        .unwrap()
        .replace("http://127.0.0.1:8081", &sandbox.imgwire);
    assert_eq!(shell(command).await["billing"], "unpaid");
    let answer = sandbox
        .ask()
        .bearer(&Token::of("user_1").sign())
        .send()
        .await;
    answer.assert_error(500, "imgwire_failed");
}

#[test]
fn a_port_that_is_taken_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for option in ["--port", "--imgwire-port"] {
        let output = run(&["sandbox", option, &port]);
        assert_eq!(output.status.code(), Some(1), "{option}");
        let error = text(&output.stderr);
        let expected = format!("cannot listen on 127.0.0.1:{port}");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn the_published_snippet_uploads_from_a_page_on_another_port() {
    if !are_here(&["chromium", "node", "npm:playwright-core"]) {
        return;
    }
    let sandbox = OwnSandbox::start(&without_api_key());
    let token = Token::of("user_1").sign();
    let output = Command::new("node")
        .current_dir(browser())
        .args([
            "upload.mjs",
            &sandbox.gate,
            &sandbox.imgwire,
            CLIENT_KEY,
            &token,
        ])
        .output()
        .unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert_eq!(said.matches("ok: ").count(), 3, "{said}");
}
