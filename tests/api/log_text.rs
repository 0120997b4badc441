//! `log = "text"`.

use std::{
    fs,
    io::Read as _,
    process::{Command, Stdio},
};

use actix_web::http::Method;

use crate::{
    helpers::{Emulator, Gate, ROUTE, Token, eventually, rate_limit},
    process::{PROGRAM, program, write_config},
};

/// A gate that writes text, until it is dropped.
struct TextGate {
    child: std::process::Child,
    log: std::path::PathBuf,
    url: String,
    _imgwire: Emulator,
    _folder: tempfile::TempDir,
}

impl TextGate {
    /// Starts the gate by a shell, which writes its id. `command` has `GATE` for the command line of the gate.
    async fn start(shell: &str, variables: &[(&str, &str)]) -> Self {
        let imgwire = Emulator::start().unwrap();
        let gate =
            Gate::with_policies([("burst", rate_limit().per(["user"]).limit(1).period("1h"))])
                .set("telemetry.log", "text");
        let (folder, config) = write_config(&gate, imgwire.url());
        let log = folder.path().join("log");
        let line = format!("{PROGRAM} serve --config {}", config.display());
        let mut command = program(&[]);
        let arguments = shell
            .replace("GATE", &line)
            .replace("LOG", &log.display().to_string());
        command = {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(arguments).env_clear();
            for (name, value) in command.get_envs() {
                shell.env(name, value.unwrap());
            }
            shell
        };
        command.env("TERM", "xterm").envs(variables.iter().copied());
        command.env("RUST_LOG", "info");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut gate = Self {
            child: child.spawn().unwrap(),
            log,
            url: String::new(),
            _imgwire: imgwire,
            _folder: folder,
        };
        eventually("the start", async || {
            let text = gate.text();
            let Some((_, rest)) = text.split_once("listening") else {
                return false;
            };
            // Without colours, which surround the name.
            let address = rest.split_once("127.0.0.1:").map(|(_, rest)| rest);
            let port = address.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
            gate.url = format!("http://127.0.0.1:{}", port.unwrap_or_default());
            rest.contains('\n')
        })
        .await;
        gate
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn line_with(&self, part: &str) -> Option<String> {
        let text = self.text();
        text.lines()
            .find(|line| line.contains(part))
            .map(str::to_owned)
    }
}

impl Drop for TextGate {
    fn drop(&mut self) {
        // `exec` made the shell the gate, or `script`, whose end hangs up the gate's terminal.
        let id = self.child.id().to_string();
        let _ = Command::new("pkill").args(["-KILL", "-P", &id]).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[actix_web::test]
async fn each_event_is_one_aligned_line_that_no_client_can_forge() {
    let gate = TextGate::start("exec GATE 2>LOG", &[]).await;
    let client = awc::Client::default();
    let token = Token::of("user 1 outcome=issued").sign();
    for id in ["first", "second"] {
        let request = client
            .post(format!("{}{ROUTE}", gate.url))
            .bearer_auth(&token);
        request
            .insert_header(("x-request-id", id))
            .send()
            .await
            .unwrap();
    }
    let forged = "evil\n2026-01-01T00:00:00Z INFO  decision outcome=issued\u{1b}[31m\u{2028}";
    let mut named = Token::of("user_2").with("iss", forged.into());
    named.header.kid = Some(forged.to_owned());
    named = named.with("exp", 1.into());
    let request = client
        .post(format!("{}{ROUTE}", gate.url))
        .bearer_auth(named.sign());
    request
        .insert_header(("x-request-id", "third"))
        .send()
        .await
        .unwrap();
    let request = client.request(Method::GET, format!("{}/a%0ab%1b", gate.url));
    request
        .insert_header(("x-request-id", "fourth"))
        .send()
        .await
        .unwrap();
    eventually("the lines", async || gate.line_with("fourth").is_some()).await;

    let text = gate.text();
    assert!(
        !text.contains('\u{1b}') && !text.contains('\u{2028}'),
        "{text}"
    );
    for line in text.lines() {
        let (time, rest) = line.split_at(27);
        assert!(time.ends_with('Z'), "{line}");
        let level = &rest[1..6];
        assert!(["INFO ", "WARN ", "ERROR"].contains(&level), "{line}");
        // Messages have a column of their own.
        assert_eq!(&rest[6..7], " ", "{line}");
    }
    let issued = gate.line_with("request_id=first ").unwrap();
    assert!(
        issued.contains(
            " INFO  decision         request_id=first client=127.0.0.1 outcome=issued status=200"
        ),
        "{issued}"
    );
    assert!(
        issued.contains(r#" subject="user 1 outcome=issued" "#),
        "{issued}"
    );
    let limited = gate.line_with("request_id=second ").unwrap();
    assert!(
        limited.contains(r#" reason="the rate limit is exceeded" "#),
        "{limited}"
    );
    assert!(
        limited.contains(r#" limit_key="user=user 1 outcome=issued" "#),
        "{limited}"
    );
    let expired = gate.line_with("request_id=third ").unwrap();
    assert!(expired.contains(r#"issuer="evil\\n2026"#), "{expired}");
    let missing = gate.line_with("request_id=fourth ").unwrap();
    assert!(
        missing.contains(" INFO  refused          request_id=fourth"),
        "{missing}"
    );
}

#[actix_web::test]
async fn only_a_terminal_without_no_color_has_colours() {
    let on_terminal = "exec script -qefc 'GATE' LOG";
    for (shell, variables, has_colours) in [
        (on_terminal, &[][..], true),
        (on_terminal, &[("NO_COLOR", "1")], false),
        (on_terminal, &[("TERM", "dumb")], false),
        ("exec GATE 2>LOG", &[], false),
    ] {
        let gate = TextGate::start(shell, variables).await;
        let mut text = String::new();
        fs::File::open(&gate.log)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(
            text.contains('\u{1b}'),
            has_colours,
            "{variables:?}: {text}"
        );
    }
}
