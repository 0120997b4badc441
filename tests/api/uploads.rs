//! The creation of uploads through the gate: what is allowed, and what reaches Imgwire.

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::{
    helpers::{
        Answer, ENVIRONMENT, Emulator, Endpoint, Gate, TestApp, Token, eventually, quota,
        rate_limit, signed_in, upload_intent, upload_route, workspace_member,
    },
    process::{GateProcess, write_config},
};

/// The route of these tests, and a part of its path for a member of the workspace.
pub(crate) const ROUTE: &str = "/imgwire/{workspace}";
pub(crate) const WORKSPACE: &str = "/imgwire/ws_1";
pub(crate) const CREATE: &str = "/api/v1/images/standard_upload";
pub(crate) const IMAGES: &str = "/api/v1/images/";

/// A gate whose only route uploads into workspaces.
pub(crate) fn gate() -> Gate {
    with_policies(["signed-in", "member"])
}

/// A gate whose only route uploads into workspaces after these policies.
pub(crate) fn with_policies<const N: usize>(policies: [&str; N]) -> Gate {
    Gate::bare()
        .policy("signed-in", signed_in(["app", "browser"]))
        .policy("member", workspace_member().claim("workspaces"))
        .route_with(upload_route(ROUTE, policies.as_slice()))
}

pub(crate) fn png() -> Value {
    json!({ "file_name": "me.png", "mime_type": "image/png", "content_length": 48_213 })
}

/// `value` with other members.
pub(crate) fn with(mut value: Value, members: &Value) -> Value {
    for (name, member) in members.as_object().unwrap() {
        value[name] = member.clone();
    }
    value
}

pub(crate) async fn create(app: &TestApp, token: &Token, body: &Value) -> Answer {
    create_at(app, WORKSPACE, token, body).await
}

pub(crate) async fn create_at(app: &TestApp, at: &str, token: &Token, body: &Value) -> Answer {
    let request = app.request(Method::POST, &format!("{at}{CREATE}"));
    request.bearer(&token.sign()).json(body).await
}

/// Creates an upload, and returns the id of its image.
pub(crate) async fn created(app: &TestApp, token: &Token, body: &Value) -> String {
    id(&create(app, token, body).await)
}

/// The id of the image that was created.
#[track_caller]
pub(crate) fn id(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json["image"]["id"].as_str().unwrap().to_owned()
}

/// How many units of a policy the user has left.
pub(crate) async fn remaining(app: &TestApp, token: &Token, policy: &str) -> u64 {
    let request = app.request(Method::GET, &format!("{WORKSPACE}/allowance"));
    let answer = request.bearer(&token.sign()).send().await;
    let limits = answer.json["limits"].as_array().unwrap();
    let limit = limits.iter().find(|limit| limit["policy"] == policy);
    limit.unwrap()["remaining"].as_u64().unwrap()
}

#[actix_web::test]
async fn a_member_creates_an_upload_and_sends_the_bytes_to_its_url() {
    let app = gate().start().await;
    let token = Token::of("user_1");
    let bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x02\0\0\0\x03\x08\x02\0\0\0".to_vec();
    let size = bytes.len();
    let answer = create(
        &app,
        &token,
        &with(png(), &json!({ "content_length": size })),
    )
    .await;
    let id = id(&answer);
    answer.assert_envelope();
    assert_eq!(answer.json.as_object().unwrap().len(), 2);
    let image = &answer.json["image"];
    assert_eq!(image["status"], "PENDING");
    assert_eq!(image["original_filename"], "me.png");
    assert_eq!(image["can_upload"], true);

    let url = answer.json["upload_url"].as_str().unwrap();
    let put = awc::Client::default().put(url).content_type("image/png");
    assert_eq!(put.send_body(bytes).await.unwrap().status(), 200);
    let read = async || {
        let request = app.request(Method::GET, &format!("{WORKSPACE}{IMAGES}{id}"));
        request.bearer(&token.sign()).send().await
    };
    eventually("the image is ready", async || {
        read().await.json["status"] == "READY"
    })
    .await;
    let image = read().await.json;
    assert_eq!((&image["width"], &image["height"]), (&json!(2), &json!(3)));
    assert_eq!(image["size_bytes"], size);
    assert_eq!(app.imgwire.asked_at(Endpoint::Token), 0);
}

#[actix_web::test]
async fn imgwire_gets_exactly_what_the_chain_saw() {
    let metadata = json!({ "workspace": "workspace.id", "by": "subject.id", "big": "request.file.size > 1000" });
    let route = upload_route(ROUTE, ["signed-in", "member"])
        .metadata(metadata)
        .client_metadata(["alt", "rating", "draft"]);
    let app = gate().route_with(route).start().await;
    let body = json!({
        "file_name": "Ä \"b\".png",
        "mime_type": "image/png",
        "content_length": 104_857_600,
        "hash_sha256": "9f86d081884c7d65",
        "purpose": "avatar",
        "custom_metadata": { "alt": "a cat", "rating": 4.5, "draft": true },
    });
    let answer = create(&app, &Token::of("user_1"), &body).await;
    let id = id(&answer);
    let images = app.imgwire.images(ENVIRONMENT);
    assert_eq!(images.len(), 1);
    let image = &images[0];
    assert_eq!(image["id"], id);
    assert_eq!(image["original_filename"], "Ä \"b\".png");
    assert_eq!(image["mime_type"], "image/png");
    assert_eq!(image["size_bytes"], 104_857_600);
    assert_eq!(image["hash_sha256"], "9f86d081884c7d65");
    assert_eq!(image["purpose"], "avatar");
    let metadata = json!({
        "alt": "a cat", "rating": 4.5, "draft": true, "workspace": "ws_1", "by": "user_1", "big": true,
    });
    assert_eq!(image["custom_metadata"], metadata);
    assert_eq!(answer.json["image"]["custom_metadata"], metadata);
    assert_eq!(image["upload_token_id"], Value::Null);
    // The gate always sends a key, from which nothing can be learned.
    assert_eq!(image["idempotency_key"].as_str().unwrap().len(), 43);
}

#[actix_web::test]
async fn a_client_can_set_neither_metadata_of_the_server_nor_other_keys() {
    let route = upload_route(ROUTE, ["signed-in", "member"])
        .metadata(json!({ "workspace": "workspace.id", "owner": "subject.id" }))
        .client_metadata(["alt"]);
    let app = gate().route_with(route).start().await;
    let forged = json!({
        "workspace": "ws_9", "owner": "user_9", "alt": "x", "Owner": "user_9", "role": "admin", "": 1,
    });
    let body = with(png(), &json!({ "custom_metadata": forged }));
    let answer = create(&app, &Token::of("user_1"), &body).await;
    let expected = json!({ "workspace": "ws_1", "owner": "user_1", "alt": "x" });
    assert_eq!(answer.json["image"]["custom_metadata"], expected);
    let images = app.imgwire.images(ENVIRONMENT);
    assert_eq!(images[0]["custom_metadata"], expected);
}

#[actix_web::test]
async fn a_policy_judges_the_file_and_the_purpose_of_the_body() {
    let intent = upload_intent()
        .purposes(["avatar"])
        .mime_types(["image/png", "image/jpeg"])
        .max_size("1MB");
    let app = with_policies(["signed-in", "member", "avatars"])
        .policy("avatars", intent)
        .start()
        .await;
    let avatar = with(png(), &json!({ "purpose": "avatar" }));
    let token = Token::of("user_1");
    for (change, code) in [
        (json!({}), None),
        (json!({ "mime_type": "image/jpeg" }), None),
        (json!({ "purpose": "banner" }), Some("purpose_forbidden")),
        (json!({ "purpose": null }), Some("purpose_forbidden")),
        (
            json!({ "mime_type": "image/gif" }),
            Some("file_type_forbidden"),
        ),
        (json!({ "mime_type": null }), Some("file_required")),
        (
            json!({ "content_length": 1_000_001 }),
            Some("file_too_large"),
        ),
        (json!({ "content_length": null }), Some("file_required")),
    ] {
        let answer = create(&app, &token, &with(avatar.clone(), &change)).await;
        match code {
            None => _ = id(&answer),
            Some(code) => answer.assert_error(403, code),
        }
    }
    assert_eq!(app.imgwire.asked_at(Endpoint::Upload), 2);
}

#[actix_web::test]
async fn a_purpose_of_the_route_applies_to_uploads() {
    let route = upload_route(ROUTE, ["signed-in", "member"]).purpose("avatar");
    let app = gate().route_with(route).start().await;
    let token = Token::of("user_1");
    created(&app, &token, &png()).await;
    let other = with(png(), &json!({ "purpose": "banner" }));
    let answer = create(&app, &token, &other).await;
    answer.assert_error(403, "purpose_forbidden");
    let images = app.imgwire.images(ENVIRONMENT);
    assert_eq!(images.len(), 1);
    assert_eq!(images[0]["purpose"], "avatar");
}

#[actix_web::test]
async fn clients_that_the_chain_denies_do_not_reach_imgwire() {
    let gate = with_policies(["signed-in", "member", "burst", "daily"])
        .policy("burst", rate_limit().per(["user"]).limit(3))
        .policy("daily", quota().per(["user"]).limit(2));
    let app = gate.start().await;
    let request = app.request(Method::POST, &format!("{WORKSPACE}{CREATE}"));
    request
        .json(&png())
        .await
        .assert_error(401, "not_signed_in");
    let request = app.request(Method::POST, &format!("{WORKSPACE}{CREATE}"));
    let answer = request.bearer("x.y.z").json(&png()).await;
    answer.assert_error(401, "invalid_credentials");
    let token = Token::of("user_1");
    let answer = create_at(&app, "/imgwire/ws_2", &token, &png()).await;
    answer.assert_error(403, "workspace_forbidden");
    assert_eq!(app.imgwire.asked_at(Endpoint::Upload), 0);

    for left in [1, 0] {
        let answer = create(&app, &token, &png()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let daily = format!("\"daily\";r={left};");
        assert!(answer.header("ratelimit").contains(&daily), "{answer:?}");
    }
    let answer = create(&app, &token, &png()).await;
    answer.assert_error(429, "quota_exhausted");
    let answer = create(&app, &token, &png()).await;
    answer.assert_error(429, "rate_limited");
    assert!(!answer.header("retry-after").is_empty());
    assert_eq!(app.imgwire.asked_at(Endpoint::Upload), 2);
    let line = "imgwire_gate_decisions_total{route=\"/imgwire/{workspace}\",outcome=\"created\",policy=\"\",code=\"created\"}";
    assert_eq!(app.metric(line).await, 2.0);
}

#[actix_web::test]
async fn an_upload_into_no_workspace_belongs_to_its_user() {
    let app = Gate::accepting(["app"]).upload_route("/mine").start().await;
    let id = id(&create_at(&app, "/mine", &Token::of("user_1"), &png()).await);
    for (user, status) in [("user_1", 200), ("user_2", 404)] {
        let request = app.request(Method::GET, &format!("/mine{IMAGES}{id}"));
        let answer = request.bearer(&Token::of(user).sign()).send().await;
        assert_eq!(answer.status, status, "{user}");
    }
}

#[actix_web::test]
async fn an_upload_has_one_decision_line_with_the_image() {
    let imgwire = Emulator::start().unwrap();
    let route = upload_route(ROUTE, ["signed-in", "member"])
        .metadata(json!({ "plan": "subject.claims.plan", "by": "subject.id" }));
    let (_folder, config) = write_config(&gate().route_with(route), imgwire.url());
    let gate = GateProcess::start(&config, &[], "info").await;
    let body = with(png(), &json!({ "idempotency_key": "key 1" }));
    let send = async || {
        let request = awc::Client::default().post(format!("{}{WORKSPACE}{CREATE}", gate.url()));
        let request = request.bearer_auth(Token::of("user_1").sign());
        let mut response = request.send_json(&body).await.unwrap();
        let answer: Value = serde_json::from_slice(&response.body().await.unwrap()).unwrap();
        answer
    };
    let first = send().await;
    let again = send().await;
    assert_eq!(first["image"]["custom_metadata"], json!({ "by": "user_1" }));
    assert_eq!(first["image"]["id"], again["image"]["id"]);
    eventually("two lines", async || gate.decisions().len() == 2).await;
    for (line, outcome) in gate.decisions().iter().zip(["created", "repeated"]) {
        assert_eq!(line["outcome"], outcome, "{line}");
        assert_eq!(line["status"], 200);
        assert_eq!(line["image_id"], first["image"]["id"]);
        assert_eq!(line["route"], ROUTE);
        assert_eq!(line["subject"], "user_1");
        assert_eq!(line["workspace"], "ws_1");
        assert_eq!(line["upstream_attempts"], 1);
        assert_eq!(line["upload_token_id"], Value::Null);
    }
    // An expression without a value is left out, and the operator learns which.
    let lines = gate.lines();
    let warned: Vec<_> = lines
        .iter()
        .filter(|line| line["level"] == "WARN")
        .collect();
    assert!(!warned.is_empty());
    for line in warned {
        assert_eq!(line["message"], "metadata left out", "{line}");
        assert_eq!(
            (&line["route"], &line["key"]),
            (&json!(ROUTE), &json!("plan"))
        );
        assert_eq!(line["request_id"].as_str().unwrap().len(), 36);
    }
    // Whoever has the URL can upload.
    let url = first["upload_url"].as_str().unwrap();
    let signature = url.split_once("signature=").unwrap().1;
    assert!(!gate.log().contains(signature));
}
