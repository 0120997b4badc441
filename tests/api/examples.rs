//! The examples of `docs/concepts.md` and of `config`, and their tables of cases.

use std::{fs, path::Path, process::Command};

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::{
    helpers::{Answer, EVENTS_SECRET, Gate, ROUTE, SECRET, SESSION_KEY, TestApp, Token},
    real_parts::blocks,
    service::{Reply, Service},
};

/// A gate with the config of this check, whose services are at `app`.
async fn check(number: usize, app: &Service) -> TestApp {
    let checks = blocks("docs/concepts.md", "toml");
    assert_eq!(checks.len(), 4);
    Gate::bare()
        .include(&checks[number - 1].replace("http://app:3000", &app.url))
        .start()
        .await
}

async fn send(gate: &TestApp, route: &str, token: &Token, body: &Value) -> Answer {
    let request = gate.request(Method::POST, route);
    request.bearer(&token.sign()).json(body).await
}

#[actix_web::test]
async fn check_1_of_the_concepts_requires_a_signed_in_user() {
    let gate = check(1, &Service::start()).await;
    gate.ask_as(&Token::of("user_1")).await.assert_token();
    gate.ask().send().await.assert_error(401, "not_signed_in");
    let forged = gate.ask().bearer("forged").send().await;
    forged.assert_error(401, "invalid_credentials");
}

#[actix_web::test]
async fn check_2_of_the_concepts_requires_a_member_of_the_workspace() {
    let gate = check(2, &Service::start()).await;
    let member = |role: &str| {
        Token::of("user_1").with("workspaces", json!([{ "id": "ws_1", "role": role }]))
    };
    let named = |workspace: &str| json!({ "workspace": workspace });
    let answer = send(&gate, ROUTE, &member("editor"), &named("ws_1")).await;
    answer.assert_token();
    for (role, workspace) in [("viewer", "ws_1"), ("editor", "ws_2")] {
        let answer = send(&gate, ROUTE, &member(role), &named(workspace)).await;
        answer.assert_error(403, "workspace_forbidden");
    }
}

#[actix_web::test]
async fn check_3_of_the_concepts_requires_the_right_step_of_the_flow() {
    const AVATARS: &str = "/api/imgwire/avatar-token";
    let gate = check(3, &Service::start()).await;
    let at = |step: &str| Token::of("user_1").with("step", json!(step));
    send(&gate, AVATARS, &at("picture"), &json!({}))
        .await
        .assert_token();
    let other = json!({ "purpose": "banner" });
    let answer = send(&gate, AVATARS, &at("picture"), &other).await;
    answer.assert_error(403, "purpose_forbidden");
    let answer = send(&gate, AVATARS, &at("name"), &json!({})).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (403, "rule_forbidden")
    );
    assert_eq!(answer.json["message"], "First tell us your name.");
    let nowhere = send(&gate, ROUTE, &at("picture"), &json!({})).await;
    nowhere.assert_error(404, "not_found");
}

#[actix_web::test]
async fn check_4_of_the_concepts_checks_count_file_type_and_moderation() {
    let app = Service::start();
    app.answer("/api/may-upload", Reply::status(204));
    let gate = check(4, &app).await;
    let token = Token::of("user_1");
    let file =
        |mime_type: &str, size: u32| json!({ "file": { "mimeType": mime_type, "size": size } });
    let png = file("image/png", 1_000);
    send(&gate, ROUTE, &token, &png).await.assert_token();
    for (body, code) in [
        (json!({}), "file_required"),
        (file("image/gif", 1_000), "file_type_forbidden"),
        (file("image/png", 5_000_001), "file_too_large"),
    ] {
        send(&gate, ROUTE, &token, &body)
            .await
            .assert_error(403, code);
    }
    app.answer("/api/may-upload", Reply::status(403));
    send(&gate, ROUTE, &token, &png)
        .await
        .assert_error(403, "rule_forbidden");
    app.answer("/api/may-upload", Reply::status(204));
    for _ in 0..19 {
        send(&gate, ROUTE, &token, &png).await.assert_token();
    }
    send(&gate, ROUTE, &token, &png)
        .await
        .assert_error(429, "quota_exhausted");
}

/// Runs a table of cases against an example config in `folder`, with addresses and paths of this machine.
fn test(folder: &Path, config: &str, cases: &str, replaced: &[(&str, &str)]) -> String {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let text = fs::read_to_string(examples.join(config)).unwrap();
    let text = replaced.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{config} has no {from}");
        text.replace(from, to)
    });
    let config = folder.join(config);
    fs::write(&config, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_imgwire-gate"))
        .current_dir(folder)
        .arg("test")
        .arg(examples.join(cases))
        .arg("--config")
        .arg(&config)
        .env("IMGWIRE_API_KEY", "sk_0123456789")
        .env("SANDBOX_IMGWIRE_API_KEY", "sk_0123456789")
        .env("APP_JWT_SECRET", SECRET)
        .env("SANDBOX_JWT_SECRET", SECRET)
        .env("IMGWIRE_GATE_SESSION_KEY", SESSION_KEY)
        .env("SANDBOX_SESSION_KEY", SESSION_KEY)
        .env("SANDBOX_EVENTS_SECRET", EVENTS_SECRET)
        .output()
        .unwrap();
    assert!(output.status.success(), "{config:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_cases_of_the_example_configs_pass() {
    let folder = tempfile::tempdir().unwrap();
    let default = test(folder.path(), "default.toml", "default.cases.toml", &[]);
    assert_eq!(default, "3 passed, 0 failed\n");
    let sandbox = test(folder.path(), "sandbox.toml", "sandbox.cases.toml", &[]);
    assert_eq!(sandbox, "4 passed, 0 failed\n");

    let secrets = folder.path().join("secrets");
    fs::create_dir(&secrets).unwrap();
    let public_key = include_str!("../keys/rsa_public.pem");
    for (name, secret) in [
        ("imgwire_api_key", "sk_0123456789"),
        ("imgwire_gate_session_key", SESSION_KEY),
        ("idp_public_key.pem", public_key),
        ("management_token", "0123456789abcdef"),
        ("imgwire_gate_events_secret", EVENTS_SECRET),
    ] {
        fs::write(secrets.join(name), secret).unwrap();
    }
    let here = [("/run/secrets", secrets.to_str().unwrap())];
    let production = test(
        folder.path(),
        "production.example.toml",
        "production.cases.toml",
        &here,
    );
    assert_eq!(production, "4 passed, 0 failed\n");
}

#[actix_web::test]
async fn a_suspended_user_is_refused_by_claim_by_database_and_by_open_policy_agent() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    let database = rusqlite::Connection::open(folder.path().join("data/app.db")).unwrap();
    database
        .execute_batch(
            "create table users (id text primary key, suspended boolean not null);
             create table members (user_id text, workspace_id text, role text);
             insert into users values ('user_1', false), ('user_2', true), ('user_3', false);
             insert into members values
                 ('user_1', 'ws_1', 'owner'), ('user_2', 'ws_1', 'owner'), ('user_3', 'ws_1', 'editor');",
        )
        .unwrap();
    // A double of the data API of Open Policy Agent.
    let agent = Service::start();
    agent.decide(
        "/v1/data/uploads/allow",
        |question| json!({ "result": question["input"]["subject"]["id"] != "user_3" }),
    );
    let replaced = [("http://127.0.0.1:8181".to_owned(), agent.url.clone())];
    let passed = actix_web::web::block(move || {
        let replaced = replaced
            .each_ref()
            .map(|(from, to)| (from.as_str(), to.as_str()));
        test(
            folder.path(),
            "moderation.example.toml",
            "moderation.cases.toml",
            &replaced,
        )
    });
    assert_eq!(passed.await.unwrap(), "7 passed, 0 failed\n");
    assert!(!agent.seen("/v1/data/uploads/allow").is_empty());
}
