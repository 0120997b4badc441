//! Rules that other services know: memberships of the app, decisions of a service.

use std::time::Duration;

use actix_web::http::Method;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    helpers::{Answer, Recipe, TestApp, Token},
    service::{Reply, Service},
};

pub(crate) const MEMBER: &str = "/api/workspaces/ws_1/members/user_1";

fn with(policy: &str) -> Recipe {
    let policies = format!(
        "[policies.signed-in]\nkind = \"signed_in\"\naccept = [\"app\"]\n[policies.asked]\n{policy}"
    );
    let recipe = Recipe {
        policies,
        chain: r#"["signed-in", "asked"]"#.into(),
        ..Recipe::default()
    };
    recipe.with_secret("TEST_TOKEN", "a token of the gate's")
}

pub(crate) fn member(app: &Service, more: &str) -> Recipe {
    with(&format!(
        r#"
        kind = "workspace_member"
        url = "{}/api/workspaces/{{workspace}}/members/{{user}}"
        token = {{ env = "TEST_TOKEN" }}
        {more}
        "#,
        app.url
    ))
}

async fn ask_for(gate: &TestApp, user: &str, workspace: &str) -> Answer {
    let request = gate.ask().bearer(&Token::of(user).sign());
    request.json(&json!({ "workspace": workspace })).await
}

#[actix_web::test]
async fn the_app_is_asked_who_is_a_member() {
    let app = Service::start();
    let gate = member(&app, "roles = [\"owner\", \"editor\"]\ntimeout = \"300ms\"")
        .start()
        .await;
    for (reply, status, code) in [
        (Reply::json(&json!({ "role": "owner" })), 200, ""),
        (
            Reply::json(&json!({ "role": "viewer" })),
            403,
            "workspace_forbidden",
        ),
        (Reply::json(&json!({})), 500, "internal"),
        (Reply::status(404), 403, "workspace_forbidden"),
        (Reply::status(401), 500, "internal"),
        (Reply::status(500), 500, "internal"),
        (
            Reply::status(302).header("location", "/elsewhere"),
            500,
            "internal",
        ),
        (Reply::text("<html>"), 500, "internal"),
        (Reply::json(&json!({ "role": 1 })), 500, "internal"),
        (
            Reply::json(&json!({ "role": "owner" })).after(Duration::from_secs(30)),
            500,
            "internal",
        ),
    ] {
        let shown = format!("{} {}", reply.status, reply.body);
        app.answer(MEMBER, reply);
        let answer = ask_for(&gate, "user_1", "ws_1").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (status, code),
            "{shown}"
        );
    }
    let seen = app.seen(MEMBER).pop().unwrap();
    assert_eq!(seen.method, "GET");
    assert_eq!(
        seen.headers["authorization"],
        "Bearer a token of the gate's"
    );
    gate.ask_as(&Token::of("user_1"))
        .await
        .assert_error(403, "workspace_required");
}

#[actix_web::test]
async fn an_id_that_is_no_plain_segment_is_forbidden_and_asks_nobody() {
    let app = Service::start();
    app.answer(MEMBER, Reply::json(&json!({ "role": "owner" })));
    let gate = member(&app, "").start().await;
    let ids = [
        "ws_1/members/user_1?",
        "../public/x",
        "..",
        ".",
        "...",
        "x/../ws_1",
        "..\\public",
        "..;",
        "ws_1;x=1",
        "ws_1?x=",
        "ws_1#",
        "ws_1%2Fx",
        "%2e%2e",
        "%252e%252e",
        "{workspace}",
        "ws 1",
        "ws_1&x",
        "\u{ff0e}\u{ff0e}",
        "\u{2025}",
        "ws_\u{661}",
    ];
    for id in ids {
        for (user, workspace) in [("user_1", id), (id, "ws_1")] {
            let answer = ask_for(&gate, user, workspace).await;
            answer.assert_error(403, "workspace_forbidden");
        }
    }
    assert_eq!(app.all_seen(), Vec::<String>::new());
    ask_for(&gate, "user_1", "ws_1").await.assert_token();
    let described = json!({ "subject": { "id": "a/b" }, "workspace": "ws_1" });
    let explained = gate
        .request_management(Method::POST, "/explain")
        .json(&described)
        .await;
    let reason = explained.json["policies"][1]["reason"].as_str().unwrap();
    assert_eq!(
        reason,
        "a URL cannot have workspace `ws_1` and user `a/b` in it"
    );
}

#[actix_web::test]
async fn ids_of_the_usual_issuers_are_asked_about() {
    let app = Service::start();
    let gate = member(&app, "").start().await;
    for (id, in_path) in [
        ("6f1c2a52-0a4e-4e0c-9d6c-3d3ea4c1f3ab", None),
        (
            "auth0|5f7c8ec7c33c6c004bbafe82",
            Some("auth0%7C5f7c8ec7c33c6c004bbafe82"),
        ),
        ("ada+photos@example.com", Some("ada%2Bphotos%40example.com")),
        ("us-east-1:4e0c9d6c", Some("us-east-1%3A4e0c9d6c")),
        ("R2F0ZQ==", Some("R2F0ZQ%3D%3D")),
        ("42", None),
        ("v1.2~x", None),
    ] {
        let in_path = in_path.unwrap_or(id);
        let path = format!("/api/workspaces/{in_path}/members/{in_path}");
        app.answer(
            &path,
            Reply::json(&json!({ "role": "owner", "workspace": id })),
        );
        let answer = ask_for(&gate, id, id).await;
        assert_eq!(answer.status, 200, "{id}: {:?}", app.all_seen().last());
    }
}

#[actix_web::test]
async fn the_apps_answer_is_remembered_and_a_no_forgotten_sooner() {
    let app = Service::start();
    app.answer(
        MEMBER,
        Reply::json(&json!({ "role": "owner" })).after(Duration::from_millis(300)),
    );
    let gate = member(&app, r#"cache = "30s""#).start().await;
    for answer in join_all((0..30).map(|_| ask_for(&gate, "user_1", "ws_1"))).await {
        answer.assert_token();
    }
    assert_eq!(app.seen(MEMBER).len(), 1);
    app.answer(MEMBER, Reply::status(404));
    ask_for(&gate, "user_1", "ws_1").await.assert_token();
    gate.clock.advance(Duration::from_secs(31));
    ask_for(&gate, "user_1", "ws_1")
        .await
        .assert_error(403, "workspace_forbidden");
    app.answer(MEMBER, Reply::json(&json!({ "role": "owner" })));
    gate.clock.advance(Duration::from_secs(2));
    ask_for(&gate, "user_1", "ws_1").await.assert_token();
}

#[actix_web::test]
async fn members_may_stand_in_the_config() {
    let gate = with(
        r#"
        kind = "workspace_member"
        members = { ws_1 = { user_1 = "owner", user_2 = "viewer" }, ws_2 = { user_2 = "owner" } }
        roles = ["owner"]
        "#,
    )
    .start()
    .await;
    gate.ask_as(&Token::of("user_1")).await.assert_token();
    ask_for(&gate, "user_2", "ws_2").await.assert_token();
    for (user, workspace) in [
        ("user_2", "ws_1"),
        ("user_1", "ws_2"),
        ("user_3", "ws_1"),
        ("user_1", "ws_3"),
    ] {
        ask_for(&gate, user, workspace)
            .await
            .assert_error(403, "workspace_forbidden");
    }
    gate.ask_as(&Token::of("user_2"))
        .await
        .assert_error(403, "workspace_required");
}

const DECIDE: &str = "/v1/data/uploads/allow";

fn decided_by(service: &Service, more: &str) -> Recipe {
    with(&format!(
        r#"
        kind = "remote"
        url = "{}{DECIDE}"
        token = {{ env = "TEST_TOKEN" }}
        timeout = "300ms"
        {more}
        "#,
        service.url
    ))
}

#[actix_web::test]
async fn a_service_decides_by_its_status() {
    let service = Service::start();
    let gate = decided_by(&service, "").start().await;
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
async fn a_service_is_told_the_facts() {
    let service = Service::start();
    service.answer(DECIDE, Reply::text(""));
    let gate = decided_by(&service, "").start().await;
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
async fn a_service_and_an_expression_see_the_workspace_as_requested_and_as_found() {
    let service = Service::start();
    service.answer(DECIDE, Reply::json(&json!({ "result": true })));
    for spelling in ["WS_1", "7"] {
        let path = format!("/api/workspaces/{spelling}/members/user_1");
        let member = json!({ "role": "owner", "workspace": "ws_1" });
        service.answer(&path, Reply::json(&member));
    }
    let mut recipe = member(&service, "");
    recipe.policies += &format!(
        r#"
        [policies.spelled]
        kind = "expression"
        allow = "workspace.id == 'ws_1' && request.workspace in ['WS_1', '7']"
        [policies.moderation]
        kind = "remote"
        url = "{}{DECIDE}"
        protocol = "opa"
        "#,
        service.url
    );
    recipe.chain = r#"["signed-in", "asked", "spelled", "moderation"]"#.into();
    let gate = recipe.start().await;
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
async fn open_policy_agent_is_asked_in_its_own_words() {
    let service = Service::start();
    let gate = decided_by(&service, r#"protocol = "opa""#).start().await;
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
async fn a_decision_is_remembered_by_the_facts_and_not_by_the_time() {
    let service = Service::start();
    service.answer(DECIDE, Reply::text(""));
    let gate = decided_by(&service, r#"cache = "5s""#).start().await;
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
async fn on_failure_allow_lets_the_request_go_on() {
    let service = Service::start();
    service.answer(DECIDE, Reply::status(503));
    let gate = decided_by(&service, r#"on_failure = "allow""#)
        .start()
        .await;
    gate.ask_as(&Token::of("user_1")).await.assert_token();
    let overlooked = r#"imgwire_gate_decisions_total{route="/api/imgwire/upload-token",outcome="fault_overlooked",policy="asked",code="internal"}"#;
    assert_eq!(gate.metric(overlooked).await, 1.0);
    service.answer(DECIDE, Reply::status(403));
    gate.ask_as(&Token::of("user_1"))
        .await
        .assert_error(403, "rule_forbidden");
}
