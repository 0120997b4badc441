//! The chain: its order, releases, dry runs, and faults.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::helpers::{Gate, Misbehaviour, TestApp, Token, quota, signed_in, workspace_member};

/// A gate with five tokens per day and user, and one token per month for all users together.
fn two_quotas<const N: usize>(chain: [&str; N]) -> Gate {
    let member = workspace_member().claim("workspaces");
    Gate::bare()
        .policy("signed-in", signed_in(["app"]))
        .policy("member", member.roles(["owner", "editor"]))
        .policy("first", quota().per(["user"]).limit(5))
        .policy("second", quota().per([""; 0]).limit(1).window("month"))
        .chain(chain.to_vec())
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
async fn a_reserved_unit_is_released_if_a_later_policy_denies() {
    let app = two_quotas(["signed-in", "first", "second"]).start().await;
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
    let app = two_quotas(["signed-in", "member", "second"]).start().await;
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
async fn the_workspace_of_the_body_takes_precedence_over_the_header() {
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
async fn a_policy_in_observe_mode_never_denies_and_counts_what_it_would_deny() {
    let observed = two_quotas(["signed-in", "first", "second"]);
    let app = observed
        .set("policies.second.mode", "observe")
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
async fn signed_in_in_observe_mode_lets_anonymous_requests_through() {
    let observed = two_quotas(["signed-in", "first"]);
    let app = observed
        .set("policies.signed-in.mode", "observe")
        .start()
        .await;
    app.ask().send().await.assert_token();
}

fn break_store(folder: &Path) {
    let database = rusqlite::Connection::open(folder.join("gate.db")).unwrap();
    database
        .execute_batch("ALTER TABLE quota_counters RENAME TO elsewhere")
        .unwrap();
}

#[actix_web::test]
async fn a_policy_that_cannot_decide_is_a_fault_and_not_a_denial() {
    // A trigger refuses every write, as a full disk does.
    let app = two_quotas(["signed-in", "first"]).start().await;
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
    // The gate probes a failing disk twice per second, and requests do not wait for the probe.
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
async fn on_failure_allow_lets_the_request_through_and_counts_the_fault() {
    let lenient = two_quotas(["signed-in", "first"]).set("policies.first.on_failure", "allow");
    let app = lenient.start().await;
    break_store(app.folder.path());
    app.ask_as(&Token::of("user_1")).await.assert_token();
    let line = concat!(
        "imgwire_gate_decisions_total{route=\"/api/imgwire/upload-token\",",
        "outcome=\"fault_tolerated\",policy=\"first\",code=\"internal\"}"
    );
    assert!(app.metric(line).await >= 1.0);
}

#[actix_web::test]
async fn every_failure_after_the_chain_releases_what_all_policies_reserved() {
    let gate = two_quotas(["signed-in", "first", "second"]);
    let app = gate.imgwire("retries", 0).start().await;
    app.imgwire.misbehave_next([Misbehaviour::Close]);
    let token = Token::of("user_1");
    app.ask_as(&token).await.assert_error(500, "imgwire_failed");
    assert_eq!(remaining(&app, "first", &token).await, Some(5));
    assert_eq!(remaining(&app, "second", &token).await, Some(1));
}
