//! The chain: its order, what is released, observing, and faults.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use imgwire_gate::sandbox::emulator::Misbehaviour;
use serde_json::json;

use crate::helpers::{Recipe, TestApp, Token};

const TWO_QUOTAS: &str = r#"
    [policies.signed-in]
    kind = "signed_in"
    accept = ["app"]
    [policies.member]
    kind = "workspace_member"
    claim = "workspaces"
    roles = ["owner", "editor"]
    [policies.first]
    kind = "quota"
    per = ["user"]
    limit = 5
    window = "day"
    store = "main"
    [policies.second]
    kind = "quota"
    per = []
    limit = 1
    window = "month"
    store = "main"
"#;

fn recipe(policies: &str, chain: &str) -> Recipe {
    Recipe {
        policies: policies.into(),
        chain: chain.into(),
        ..Recipe::default()
    }
}

async fn remaining(app: &TestApp, policy: &str, token: &Token) -> Option<u64> {
    let path = format!("{}/allowance", crate::helpers::ROUTE);
    let request = app
        .request(actix_web::http::Method::GET, &path)
        .bearer(&token.sign());
    let answer = request.send().await;
    let limits = answer.json["limits"].as_array()?.clone();
    limits.iter().find(|limit| limit["policy"] == policy)?["remaining"].as_u64()
}

#[actix_web::test]
async fn what_was_held_is_released_when_a_later_policy_denies() {
    let app = recipe(TWO_QUOTAS, r#"["signed-in", "first", "second"]"#)
        .start()
        .await;
    let token = Token::of("user_1");
    app.ask_as(&token).await.assert_token();
    for _ in 0..3 {
        app.ask_as(&token)
            .await
            .assert_error(429, "quota_exhausted");
        assert_eq!(remaining(&app, "first", &token).await, Some(4));
    }
}

#[actix_web::test]
async fn the_chain_stops_at_the_first_denial() {
    let app = recipe(TWO_QUOTAS, r#"["signed-in", "member", "second"]"#)
        .start()
        .await;
    let viewer =
        Token::of("user_1").with("workspaces", json!([{ "id": "ws_1", "role": "viewer" }]));
    for _ in 0..3 {
        app.ask_as(&viewer)
            .await
            .assert_error(403, "workspace_forbidden");
    }
    let editor =
        Token::of("user_1").with("workspaces", json!([{ "id": "ws_1", "role": "editor" }]));
    app.ask_as(&editor).await.assert_token();
}

#[actix_web::test]
async fn the_body_names_the_workspace_before_the_header_does() {
    let app = TestApp::start().await;
    let token = Token::of("user_1")
        .with("workspaces", json!(["ws_1", "ws_2"]))
        .sign();
    let ask = || app.ask().bearer(&token);
    ask().send().await.assert_error(403, "workspace_required");
    ask()
        .header("x-workspace-id", "ws_2")
        .send()
        .await
        .assert_token();
    let body = json!({ "workspace": "ws_9" });
    let answer = ask().header("x-workspace-id", "ws_2").json(&body).await;
    answer.assert_error(403, "workspace_forbidden");
}

#[actix_web::test]
async fn a_policy_that_observes_never_denies_and_is_counted() {
    let observed = TWO_QUOTAS.replace("limit = 1\n", "limit = 1\n    mode = \"observe\"\n");
    let app = recipe(&observed, r#"["signed-in", "first", "second"]"#)
        .start()
        .await;
    let token = Token::of("user_1");
    for _ in 0..3 {
        let answer = app.ask_as(&token).await;
        answer.assert_token();
        assert_eq!(answer.header("ratelimit-policy"), "\"first\";q=5;w=86400");
    }
    let line = concat!(
        "imgwire_gate_decisions_total{route=\"/api/imgwire/upload-token\",",
        "outcome=\"would_deny\",policy=\"second\",code=\"quota_exhausted\"}"
    );
    assert_eq!(app.metric(line).await, 2.0);
}

#[actix_web::test]
async fn who_is_observed_not_to_be_signed_in_gets_a_token_all_the_same() {
    let observed = TWO_QUOTAS.replace(
        "accept = [\"app\"]",
        "accept = [\"app\"]\n    mode = \"observe\"",
    );
    let app = recipe(&observed, r#"["signed-in", "first"]"#).start().await;
    app.ask().send().await.assert_token();
}

/// A gate whose counters cannot be written: their table is gone.
async fn with_broken_store(on_failure: &str) -> TestApp {
    let policies = TWO_QUOTAS.replace("limit = 5\n", &format!("limit = 5\n    {on_failure}\n"));
    let app = recipe(&policies, r#"["signed-in", "first"]"#).start().await;
    break_store(app.folder.path());
    app
}

fn break_store(folder: &Path) {
    let database = rusqlite::Connection::open(folder.join("gate.db")).unwrap();
    database
        .execute_batch("ALTER TABLE quota_counters RENAME TO elsewhere")
        .unwrap();
}

#[actix_web::test]
async fn a_policy_that_cannot_tell_is_a_fault_and_no_denial() {
    // A trigger that refuses every write, as a disk that is full does.
    let app = recipe(TWO_QUOTAS, r#"["signed-in", "first"]"#)
        .start()
        .await;
    let database = rusqlite::Connection::open(app.folder.path().join("gate.db")).unwrap();
    let refuse = |event| {
        format!(
            "CREATE TRIGGER refuse_{event} BEFORE {event} ON quota_counters BEGIN SELECT RAISE(FAIL, 'the disk is full'); END;"
        )
    };
    database
        .execute_batch(&(refuse("INSERT") + &refuse("UPDATE")))
        .unwrap();
    let token = Token::of("user_1");
    let began = Instant::now();
    for _ in 0..20 {
        app.ask_as(&token).await.assert_error(500, "internal");
    }
    // A disk that is known to fail is probed twice a second, and nobody waits for that.
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let line = concat!(
        "imgwire_gate_decisions_total{route=\"/api/imgwire/upload-token\",",
        "outcome=\"faulted\",policy=\"first\",code=\"internal\"}"
    );
    assert_eq!(app.metric(line).await, 20.0);
    let readiness = app.manage("/readyz").await;
    assert_eq!(
        (readiness.status.as_u16(), &readiness.json["failing"]),
        (503, &json!(["stores.main"]))
    );

    database
        .execute_batch("DROP TRIGGER refuse_INSERT; DROP TRIGGER refuse_UPDATE")
        .unwrap();
    crate::helpers::eventually("recovery", async || {
        app.manage("/readyz").await.status == 200
    })
    .await;
    assert_eq!(remaining(&app, "first", &token).await, Some(5));
    app.ask_as(&token).await.assert_token();
}

#[actix_web::test]
async fn on_failure_allow_lets_the_request_go_on_and_counts_the_fault() {
    let app = with_broken_store("on_failure = \"allow\"").await;
    app.ask_as(&Token::of("user_1")).await.assert_token();
    let line = concat!(
        "imgwire_gate_decisions_total{route=\"/api/imgwire/upload-token\",",
        "outcome=\"fault_overlooked\",policy=\"first\",code=\"internal\"}"
    );
    assert!(app.metric(line).await >= 1.0);
}

#[actix_web::test]
async fn every_failure_after_the_chain_gives_back_what_all_policies_held() {
    let recipe = recipe(TWO_QUOTAS, r#"["signed-in", "first", "second"]"#);
    let app = Recipe {
        imgwire: "retries = 0".into(),
        ..recipe
    }
    .start()
    .await;
    app.imgwire.misbehave_next([Misbehaviour::Close]);
    let token = Token::of("user_1");
    app.ask_as(&token).await.assert_error(500, "imgwire_failed");
    assert_eq!(remaining(&app, "first", &token).await, Some(5));
    assert_eq!(remaining(&app, "second", &token).await, Some(1));
}
