//! The log line of a decision.

use serde_json::{Value, json};

use crate::{
    helpers::{Emulator, Gate, ROUTE, Token, eventually, expression, workspace_member},
    process::{GateProcess, gate_with_quota, write_config},
};

#[actix_web::test]
async fn each_decision_has_one_line_with_every_field() {
    let imgwire = Emulator::start().unwrap();
    let member = workspace_member().claim("workspaces");
    let gate = gate_with_quota(1)
        .policy("member", member)
        .chain(["signed-in", "member", "quota"]);
    let (_folder, config) = write_config(&gate, imgwire.url());
    let gate = GateProcess::start(&config, &[], "info").await;
    let token = Token::of("user_1").sign();
    assert_eq!(gate.ask(&token).await, Some(200));
    assert_eq!(gate.ask(&token).await, Some(429));
    eventually("two lines", async || gate.decisions().len() == 2).await;
    let lines = gate.decisions();
    let (issued, denied) = (&lines[0], &lines[1]);
    for line in [issued, denied] {
        assert_eq!(line["route"], ROUTE);
        assert_eq!(line["identity"], "app");
        assert_eq!(line["subject"], "user_1");
        assert_eq!(line["workspace"], "ws_1");
        assert_eq!(line["client"], "127.0.0.1");
        assert_eq!(line["request_id"].as_str().unwrap().len(), 36);
        assert!(line["timestamp"].is_string(), "{line}");
    }
    assert_ne!(issued["request_id"], denied["request_id"]);
    assert_eq!(issued["outcome"], "issued");
    assert_eq!(issued["status"], 200);
    assert_eq!(issued["upstream_attempts"], 1);
    assert!(issued["upstream_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(denied["outcome"], "denied");
    assert_eq!(denied["status"], 429);
    assert_eq!(denied["code"], "quota_exhausted");
    assert_eq!(denied["policy"], "quota");
    assert_eq!(denied["reason"], "the quota is used up");
}

#[actix_web::test]
async fn the_log_names_the_workspace_of_a_membership_and_the_reason_of_a_rule() {
    let imgwire = Emulator::start().unwrap();
    let builder = Gate::accepting(["app"])
        .policy("member", workspace_member().claim("workspaces").observe())
        .policy("rule", expression("subject.claims.plan == 'pro'"))
        .chain(["signed-in", "member", "rule"]);
    let (_folder, config) = write_config(&builder, imgwire.url());
    let gate = GateProcess::start(&config, &[], "info").await;
    let paying = Token::of("user_1").with("plan", "pro".into());
    let cases = [
        ("ws_1", &paying, "ws_1".into(), Value::Null),
        // The membership is observed to be absent, and the token is for no workspace.
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
        let request = client.post(format!("{}{ROUTE}", gate.url()));
        let request = request.bearer_auth(token.sign());
        let request = request.insert_header(("x-workspace-id", *workspace));
        request.send().await.unwrap().body().await.unwrap();
    }
    // Lines without a status report tolerated faults and observed denials.
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
async fn a_membership_source_without_workspace_ids_is_warned_of_once() {
    let imgwire = Emulator::start().unwrap();
    for (columns, warnings) in [("role", 1), ("role, workspace_id", 0)] {
        let app = tempfile::tempdir().unwrap();
        let app = app.path().join("app.db");

        let database = rusqlite::Connection::open(&app).unwrap();
        let table = "create table members (user_id text, workspace_id text, role text);
                     insert into members values ('user_1', 'ws_1', 'owner')";
        database.execute_batch(table).unwrap();
        let query =
            format!("select {columns} from members where user_id = $1 and workspace_id = $2");
        let builder = Gate::accepting(["app"])
            .store("app", json!({ "url": format!("sqlite:{}", app.display()) }))
            .policy("member", workspace_member().store("app").query(query))
            .chain(["signed-in", "member"]);
        let (_folder, config) = write_config(&builder, imgwire.url());
        let gate = GateProcess::start(&config, &[], "info").await;
        for user in ["user_1", "user_1", "user_2"] {
            let client = awc::Client::default();
            let request = client.post(format!("{}{ROUTE}", gate.url()));
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
