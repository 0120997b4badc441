//! Memberships that the app knows, and memberships of the config.

use std::time::Duration;

use actix_web::http::Method;
use futures_util::future::join_all;
use serde_json::json;

use crate::{
    helpers::{Gate, Token, env, workspace_member},
    remote_rules::{ask_for, asking},
    service::{Reply, Service},
};

pub(crate) const MEMBER: &str = "/api/workspaces/ws_1/members/user_1";

/// A gate that asks the app for memberships.
pub(crate) fn member(app: &Service) -> Gate {
    let url = format!("{}/api/workspaces/{{workspace}}/members/{{user}}", app.url);
    asking(workspace_member().url(url).token(env("TEST_TOKEN")))
}

#[actix_web::test]
async fn the_answer_of_the_app_decides_who_is_a_member() {
    let app = Service::start();
    let gate = member(&app)
        .set("policies.asked.roles", ["owner", "editor"])
        .set("policies.asked.timeout", "300ms")
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
async fn an_id_that_is_not_a_plain_path_segment_is_forbidden_without_a_call() {
    let app = Service::start();
    app.answer(MEMBER, Reply::json(&json!({ "role": "owner" })));
    let gate = member(&app).start().await;
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
        "workspace `ws_1` or user `a/b` has a character that a URL may not contain"
    );
}

#[actix_web::test]
async fn ids_of_common_issuers_are_encoded_in_the_url() {
    let app = Service::start();
    let gate = member(&app).start().await;
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
async fn an_answer_of_the_app_is_cached_and_a_negative_one_for_a_second() {
    let app = Service::start();
    app.answer(
        MEMBER,
        Reply::json(&json!({ "role": "owner" })).after(Duration::from_millis(300)),
    );
    let gate = member(&app)
        .set("policies.asked.cache", "30s")
        .start()
        .await;
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
async fn members_may_be_listed_in_the_config() {
    let members = json!({
        "ws_1": { "user_1": "owner", "user_2": "viewer" },
        "ws_2": { "user_2": "owner" },
    });
    let gate = asking(workspace_member().members(members).roles(["owner"]))
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
