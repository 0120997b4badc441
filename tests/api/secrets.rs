//! No secret appears in any output of any command.

use std::{fs, path::Path};

use actix_web::http::Method;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::{
    helpers::{
        Emulator, Gate, Misbehaviour, ROUTE, SECRET, SERVER_API_KEY, SESSION, SESSION_KEY, Token,
        env, eventually, introspection, quota, remote_decision, workspace_member,
    },
    process::{GateProcess, program},
    real_parts::free_port,
    service::{Reply, Service},
};

/// The secrets that the environment of the tests' gates does not have.
const MORE_SECRETS: [(&str, &str); 6] = [
    (
        "FORMER_SESSION_KEY",
        "the former key of the session cookie, which is at least 64 bytes long",
    ),
    ("MANAGEMENT_TOKEN", "the-token-of-the-management-listener"),
    ("CLIENT_SECRET", "the-client-secret-for-the-introspection"),
    ("STORE_PASSWORD", "the-password-of-the-store"),
    ("MEMBERS_TOKEN", "the-token-for-the-memberships"),
    ("DECISION_TOKEN", "the-token-for-the-decisions"),
];

/// A secret that is read from a file.
const FILE_SECRET: &str = "the secret of the app in a file, which is long enough for HS256";

/// An opaque token, which its issuer does not know.
const OPAQUE: &str = "the-opaque-token-of-a-user";

/// A gate with every kind of secret, whose store is down.
fn builder(service: &Service, port: u16, log: &str, file: &Path) -> Gate {
    let at = |path: &str| format!("{}{path}", service.url);
    let members = workspace_member()
        .url(at("/members/{workspace}/{user}"))
        .token(env("MEMBERS_TOKEN"));
    let decision = remote_decision(&at("/allow")).token(env("DECISION_TOKEN"));
    let shared = quota().per(["user"]).limit(100).store("shared");
    let store = json!({
        "url": "redis://gate@127.0.0.1:9",
        "password": env("STORE_PASSWORD"),
        "timeout": "300ms",
    });
    let opaque = introspection(&at("/introspect")).from(["header:x-opaque"]);
    Gate::accepting(["app", "opaque", "browser"])
        .server("bind", format!("127.0.0.1:{port}"))
        .management("token", env("MANAGEMENT_TOKEN"))
        .management("bind", format!("127.0.0.2:{port}"))
        .imgwire("retries", 0)
        .set("telemetry.log", log)
        .session("previous_keys", [env("FORMER_SESSION_KEY")])
        .store("shared", store)
        .set(
            "identities.app.secret",
            [env("TEST_SECRET"), json!({ "file": file })],
        )
        .identity("opaque", opaque)
        .set("identities.opaque.client_secret", env("CLIENT_SECRET"))
        .policy("members", members.on_failure("allow"))
        .policy("decision", decision)
        .policy("shared", shared.on_failure("allow"))
        .chain(["signed-in", "members", "decision", "shared"])
}

/// A program that adds the secrets to the environment of its arguments.
fn with_secrets() -> Vec<String> {
    let variables = MORE_SECRETS.map(|(name, secret)| format!("{name}={secret}"));
    std::iter::once("env".to_owned()).chain(variables).collect()
}

/// The output of a command that ends, on both streams.
fn run(arguments: &[&str]) -> String {
    let wrapper = with_secrets();
    let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
    let mut command = program(&wrapper);
    let output = command.args(arguments).env("RUST_LOG", "trace").output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!text.contains("panicked"), "{arguments:?}: {text}");
    text
}

/// The credentials and answers of requests to a gate that runs, and what it wrote on both streams until it ended.
struct Run {
    credentials: Vec<String>,
    output: String,
}

/// Runs a gate at trace level through requests, faults, reloads and a shutdown.
async fn serve(service: &Service, imgwire: &Emulator, folder: &Path, log: &str) -> Run {
    let port = free_port();
    let file = folder.join("secret");
    let gate = builder(service, port, log, &file);
    let config = gate.write(imgwire.url(), folder);
    let wrapper = with_secrets();
    let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
    let mut process = GateProcess::spawn(&config, &wrapper, "trace", &[]);
    let client = awc::Client::default();
    let (url, management) = (
        format!("http://127.0.0.1:{port}"),
        format!("http://127.0.0.2:{port}"),
    );
    let metrics = async || {
        let mut answer = client
            .get(format!("{management}/metrics"))
            .send()
            .await
            .ok()?;
        let body = answer.body().await.ok()?;
        Some(String::from_utf8(body.to_vec()).unwrap())
    };
    eventually("the gate's start", async || metrics().await.is_some()).await;

    let token = Token::of("user_1").sign();
    let in_workspace = |token: &str| {
        let request = client.post(format!("{url}{ROUTE}")).bearer_auth(token);
        request.insert_header(("x-workspace-id", "ws_1"))
    };
    let issued = in_workspace(&token).send().await.unwrap();
    assert_eq!(issued.status(), 200);
    for bad in [
        "nonsense",
        &Token::of("user_1").with("exp", json!(1)).sign(),
    ] {
        assert_eq!(in_workspace(bad).send().await.unwrap().status(), 401);
    }
    let opaque = client.post(format!("{url}{ROUTE}"));
    let opaque = opaque.insert_header(("x-opaque", OPAQUE)).send().await;
    assert_eq!(opaque.unwrap().status(), 401);
    // Faults of another service and of Imgwire.
    service.answer("/allow", Reply::status(503));
    assert_eq!(in_workspace(&token).send().await.unwrap().status(), 500);
    service.answer("/allow", Reply::status(200));
    imgwire.misbehave_next([Misbehaviour::Status(401, None)]);
    assert_eq!(in_workspace(&token).send().await.unwrap().status(), 500);
    let session = client.post(format!("{url}{SESSION}")).bearer_auth(&token);
    let session = session.send().await.unwrap();
    let cookie = session.headers().get("set-cookie").unwrap();
    let cookie = cookie.to_str().unwrap().split(';').next().unwrap();
    let shown = client.get(format!("{url}{SESSION}"));
    let shown = shown.insert_header(("cookie", cookie));
    assert_eq!(shown.send().await.unwrap().status(), 200);
    for (management_token, status) in [(MORE_SECRETS[1].1, 200), ("a-wrong-management-token", 401)]
    {
        let request = client.request(Method::GET, format!("{management}/log"));
        let answer = request.bearer_auth(management_token).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }

    // A reload that is applied, and one that is refused.
    for (result, text) in [("applied", None), ("refused", Some("[server"))] {
        match text {
            None => drop(
                builder(service, port, log, &file)
                    .chain(["signed-in"])
                    .write(imgwire.url(), folder),
            ),
            Some(text) => fs::write(&config, text).unwrap(),
        }
        process.signal("-HUP");
        let line = format!("imgwire_gate_config_reloads_total{{result=\"{result}\"}} 1");
        eventually(result, async || metrics().await.unwrap().contains(&line)).await;
    }
    assert_eq!(in_workspace(&token).send().await.unwrap().status(), 200);
    process.signal("-TERM");
    assert_eq!(process.end().await.code(), Some(0));
    let signature = token.rsplit('.').next().unwrap();
    let (_, session) = cookie.split_once('=').unwrap();
    Run {
        credentials: vec![signature.to_owned(), session.to_owned()],
        output: process.output(),
    }
}

#[actix_web::test]
async fn no_secret_is_in_any_output_of_any_command_even_at_trace_level() {
    let imgwire = Emulator::start().unwrap();
    let service = Service::start();
    let inactive = Reply::json(&json!({ "active": false }));
    service.answer("/introspect", inactive);
    service.answer("/allow", Reply::status(200));
    let member = Reply::json(&json!({ "role": "owner" }));
    service.answer("/members/ws_1/user_1", member);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    fs::write(&file, FILE_SECRET).unwrap();

    let mut credentials = vec![OPAQUE.to_owned(), "a-wrong-management-token".to_owned()];
    let mut outputs = Vec::new();
    for log in ["json", "text"] {
        let run = serve(&service, &imgwire, folder.path(), log).await;
        assert!(!run.output.contains("panicked"), "{}", run.output);
        assert!(run.output.contains("TRACE"), "{}", run.output);
        credentials.extend(run.credentials);
        outputs.push((log.to_owned(), run.output));
    }
    assert!(service.seen("/introspect").len() >= 2 && service.seen("/allow").len() >= 2);

    // Every other command, with a valid and with a faulty config.
    let token = Token::of("user_1").sign();
    let request = folder.path().join("request.json");
    fs::write(
        &request,
        json!({ "token": token, "workspace": "ws_1" }).to_string(),
    )
    .unwrap();
    let cases = folder.path().join("cases.toml");
    let case = format!("[[cases]]\nname = \"a token\"\ntoken = {token:?}\nexpect = \"allow\"");
    fs::write(&cases, case).unwrap();
    credentials.push(token.rsplit('.').next().unwrap().to_owned());
    let valid = builder(&service, free_port(), "json", &file);
    let faulty = builder(&service, free_port(), "json", &file)
        .server("unknown", 1)
        .set("session.key", env("STORE_PASSWORD"))
        .set("imgwire.api_key", env("MANAGEMENT_TOKEN"))
        .set("identities.app.secret", env("STORE_PASSWORD"));
    for (name, gate) in [("valid", valid), ("faulty", faulty)] {
        let config = gate.write(imgwire.url(), folder.path());
        let config = config.to_str().unwrap();
        for arguments in [
            &["check", config][..],
            &["doctor", "--probe", config],
            &["doctor", "--json", config],
            &[
                "explain",
                "--config",
                config,
                "--request",
                request.to_str().unwrap(),
            ],
            &["test", "--config", config, cases.to_str().unwrap()],
            &["health", "--config", config],
            &["schema"],
            &["openapi"],
            &["completions", "bash"],
            &["--help"],
            &["--version"],
        ] {
            let shown = format!("{name}: {arguments:?}");
            // The services that it asks run on this thread.
            let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
            let running = move || {
                let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
                run(&arguments)
            };
            let output = actix_web::web::block(running).await.unwrap();
            assert!(!output.is_empty(), "{shown}");
            outputs.push((shown, output));
        }
        if name == "faulty" {
            let config = config.to_owned();
            let running = move || run(&["serve", "--config", &config]);
            let output = actix_web::web::block(running).await.unwrap();
            assert!(output.contains("session.key"), "{output}");
            outputs.push(("faulty: serve".to_owned(), output));
        }
    }

    let basic = STANDARD.encode(format!("gate:{}", MORE_SECRETS[2].1));
    let secrets = MORE_SECRETS.map(|(_, secret)| secret);
    let secrets = secrets
        .into_iter()
        .chain([
            SERVER_API_KEY,
            SECRET,
            SESSION_KEY,
            FILE_SECRET,
            &basic,
            "ut_1_",
        ])
        .chain(credentials.iter().map(String::as_str));
    for secret in secrets {
        for (command, output) in &outputs {
            assert!(!output.contains(secret), "{secret} in {command}");
        }
    }
}
