//! Decisions of other services.

use std::time::Duration;

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::{
    helpers::{Answer, Entry, Gate, TestApp, Token, env, expression, remote_decision},
    remote_members::member,
    service::{Reply, Service},
};

/// A gate whose last policy is `asked`.
pub(crate) fn asking(policy: Entry) -> Gate {
    Gate::accepting(["app"])
        .policy("asked", policy)
        .chain(["signed-in", "asked"])
        .secret("TEST_TOKEN", "a token of the gate's")
}

pub(crate) async fn ask_for(gate: &TestApp, user: &str, workspace: &str) -> Answer {
    let request = gate.ask().bearer(&Token::of(user).sign());
    request.json(&json!({ "workspace": workspace })).await
}

const DECIDE: &str = "/v1/data/uploads/allow";

fn decided_by(service: &Service) -> Gate {
    let decision = remote_decision(&format!("{}{DECIDE}", service.url));
    asking(decision.token(env("TEST_TOKEN")).timeout("300ms"))
}

#[actix_web::test]
async fn the_status_of_a_service_decides() {
    let service = Service::start();
    let gate = decided_by(&service).start().await;
    for (reply, status, code) in [
        (Reply::text(""), 200, ""),
        (Reply::status(204), 200, ""),
        (Reply::status(403), 403, "rule_forbidden"),
        (Reply::status(401), 500, "internal"),
        (Reply::status(404), 500, "internal"),
        (
            Reply::status(302).header("location", "/elsewhere"),
            500,
            "internal",
        ),
        (Reply::status(503), 500, "internal"),
        (
            Reply::text("").after(Duration::from_secs(30)),
            500,
            "internal",
        ),
    ] {
        let shown = reply.status;
        service.answer(DECIDE, reply);
        let answer = gate.ask_as(&Token::of("user_1")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (status, code),
            "{shown}"
        );
    }
    service.go_down().await;
    gate.ask_as(&Token::of("user_1"))
        .await
        .assert_error(500, "internal");
    assert!(
        gate.metric(r#"imgwire_gate_policy_calls_total{policy="asked",result="fault"}"#)
            .await
            >= 5.0
    );
}

#[actix_web::test]
async fn a_service_gets_the_facts_of_the_request() {
    let service = Service::start();
    service.answer(DECIDE, Reply::text(""));
    let gate = decided_by(&service).start().await;
    let body = json!({ "workspace": "ws_9", "purpose": "avatar",
        "file": { "name": "me.png", "mimeType": "image/png", "size": 48213 } });
    let token = Token::of("user_1").with("plan", json!("pro"));
    let answer = gate.ask().bearer(&token.sign()).json(&body).await;
    answer.assert_token();
    let seen = service.seen(DECIDE).pop().unwrap();
    assert_eq!(
        seen.headers["authorization"],
        "Bearer a token of the gate's"
    );
    assert_eq!(seen.headers["content-type"], "application/json");
    let mut facts: Value = serde_json::from_str(&seen.body).unwrap();
    assert_eq!(facts["subject"]["claims"]["plan"], "pro");
    facts["subject"]["claims"] = json!({});
    assert!(facts["request"]["time"].is_string());
    facts["request"]["time"] = json!("now");
    let expected = json!({
        "subject": { "id": "user_1", "identity": "app", "session": false, "claims": {} },
        "request": {
            "route": "/api/imgwire/upload-token", "ip": "127.0.0.1", "time": "now",
            "workspace": "ws_9", "purpose": "avatar",
            "file": { "name": "me.png", "mime_type": "image/png", "size": 48213 },
        },
    });
    assert_eq!(facts, expected);
}

#[actix_web::test]
async fn services_and_expressions_see_the_requested_and_the_found_workspace() {
    let service = Service::start();
    service.answer(DECIDE, Reply::json(&json!({ "result": true })));
    for spelling in ["WS_1", "7"] {
        let path = format!("/api/workspaces/{spelling}/members/user_1");
        let member = json!({ "role": "owner", "workspace": "ws_1" });
        service.answer(&path, Reply::json(&member));
    }
    let spelled = "workspace.id == 'ws_1' && request.workspace in ['WS_1', '7']";
    let moderation = remote_decision(&format!("{}{DECIDE}", service.url)).protocol("opa");
    let gate = member(&service)
        .policy("spelled", expression(spelled))
        .policy("moderation", moderation)
        .chain(["signed-in", "asked", "spelled", "moderation"])
        .start()
        .await;
    let token = Token::of("user_1").sign();
    for (body, header, requested) in [
        (json!({ "workspace": "WS_1" }), None, "WS_1"),
        (json!({ "workspace": 7 }), None, "7"),
        (json!({}), Some("WS_1"), "WS_1"),
        (json!({ "workspace": "7" }), Some("WS_1"), "7"),
    ] {
        let mut request = gate.ask().bearer(&token);
        if let Some(header) = header {
            request = request.header("x-workspace-id", header);
        }
        request.json(&body).await.assert_token();
        let seen = service.seen(DECIDE).pop().unwrap();
        let input = &serde_json::from_str::<Value>(&seen.body).unwrap()["input"];
        assert_eq!(input["request"]["workspace"], requested, "{body}");
        assert_eq!(input["workspace"]["id"], "ws_1", "{body}");
    }
    let explained = gate.request_management(Method::POST, "/explain");
    let described = json!({ "subject": { "id": "user_1" }, "workspace": "WS_1" });
    let explained = explained.json(&described).await;
    assert_eq!(explained.json["outcome"], "allow", "{explained:?}");
}

#[actix_web::test]
async fn open_policy_agent_gets_its_protocol() {
    let service = Service::start();
    let gate = decided_by(&service)
        .set("policies.asked.protocol", "opa")
        .start()
        .await;
    for (reply, status, code) in [
        (Reply::json(&json!({ "result": true })), 200, ""),
        (
            Reply::json(&json!({ "result": false, "decision_id": "1" })),
            403,
            "rule_forbidden",
        ),
        (Reply::json(&json!({})), 403, "rule_forbidden"),
        (Reply::json(&json!({ "result": "true" })), 500, "internal"),
        (
            Reply::json(&json!({ "result": { "allow": true } })),
            500,
            "internal",
        ),
        (Reply::json(&json!([true])), 500, "internal"),
        (Reply::text("true"), 500, "internal"),
        (Reply::status(204), 500, "internal"),
        (Reply::status(403), 500, "internal"),
    ] {
        let shown = reply.body.clone();
        service.answer(DECIDE, reply);
        let answer = gate.ask_as(&Token::of("user_1")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (status, code),
            "{shown}"
        );
    }
    let seen: Value = serde_json::from_str(&service.seen(DECIDE).pop().unwrap().body).unwrap();
    assert_eq!(seen["input"]["subject"]["id"], "user_1");
}

#[actix_web::test]
async fn a_decision_is_cached_by_the_facts_without_the_time() {
    let service = Service::start();
    service.answer(DECIDE, Reply::text(""));
    let gate = decided_by(&service)
        .set("policies.asked.cache", "5s")
        .start()
        .await;
    for _ in 0..3 {
        gate.ask_as(&Token::of("user_1")).await.assert_token();
    }
    assert_eq!(service.seen(DECIDE).len(), 1);
    gate.ask_as(&Token::of("user_2")).await.assert_token();
    assert_eq!(service.seen(DECIDE).len(), 2);
    for (workspace, asked) in [("ws_1", 3), ("ws_2", 4), ("ws_1", 4)] {
        ask_for(&gate, "user_1", workspace).await.assert_token();
        assert_eq!(service.seen(DECIDE).len(), asked, "{workspace}");
    }
    gate.clock.advance(Duration::from_secs(6));
    gate.ask_as(&Token::of("user_1")).await.assert_token();
    assert_eq!(service.seen(DECIDE).len(), 5);
}

#[actix_web::test]
async fn on_failure_allow_lets_a_request_through_if_the_service_fails() {
    let service = Service::start();
    service.answer(DECIDE, Reply::status(503));
    let lenient = decided_by(&service).set("policies.asked.on_failure", "allow");
    let gate = lenient.start().await;
    gate.ask_as(&Token::of("user_1")).await.assert_token();
    let tolerated = r#"imgwire_gate_decisions_total{route="/api/imgwire/upload-token",outcome="fault_tolerated",policy="asked",code="internal"}"#;
    assert_eq!(gate.metric(tolerated).await, 1.0);
    service.answer(DECIDE, Reply::status(403));
    gate.ask_as(&Token::of("user_1"))
        .await
        .assert_error(403, "rule_forbidden");
}
