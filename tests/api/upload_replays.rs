//! Repeated idempotency keys of uploads.

use std::{collections::HashSet, time::Duration};

use actix_web::http::Method;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    helpers::{
        ENVIRONMENT, Emulator, Endpoint, Gate, IdempotencyScope, Misbehaviour, SERVER_API_KEY,
        TestApp, Token, quota, rate_limit, storage, upload_route,
    },
    process::{GateProcess, write_config},
    storage::{held, holding},
    uploads::{
        CREATE, IMAGES, ROUTE, WORKSPACE, create, create_at, created, gate, id, png, remaining,
        with, with_policies,
    },
};

fn with_key(key: &str) -> Value {
    with(png(), &json!({ "idempotency_key": key }))
}

/// A gate with a quota and a rate limit for each user.
fn counting(units: u64, attempts: u64) -> Gate {
    with_policies(["signed-in", "member", "burst", "daily"])
        .policy("burst", rate_limit().per(["user"]).limit(attempts))
        .policy("daily", quota().per(["user"]).limit(units))
}

async fn delete(app: &TestApp, token: &Token, id: &str) -> u16 {
    let request = app.request(Method::DELETE, &format!("{WORKSPACE}{IMAGES}{id}"));
    let answer = request.bearer(&token.sign()).send().await;
    answer.status.as_u16()
}

#[actix_web::test]
async fn a_repeated_key_gets_the_same_image_and_uses_no_quota() {
    let app = counting(1, 100).start().await;
    let token = Token::of("user_1");
    let first = create(&app, &token, &with_key("a")).await;
    let image = id(&first);
    for _ in 0..3 {
        let again = create(&app, &token, &with_key("a")).await;
        assert_eq!(id(&again), image);
        assert_ne!(again.json["upload_url"], first.json["upload_url"]);
    }
    let answer = create(&app, &token, &with_key("b")).await;
    answer.assert_error(429, "quota_exhausted");
    assert_eq!(app.imgwire.images(ENVIRONMENT).len(), 1);
}

#[actix_web::test]
async fn a_rate_limit_counts_a_repeated_key() {
    let app = counting(100, 3).start().await;
    let token = Token::of("user_1");
    for _ in 0..3 {
        created(&app, &token, &with_key("a")).await;
    }
    let answer = create(&app, &token, &with_key("a")).await;
    answer.assert_error(429, "rate_limited");
    assert_eq!(app.imgwire.asked_at(Endpoint::Upload), 3);
}

#[actix_web::test]
async fn a_rate_limit_counts_a_key_of_another_upload() {
    let app = counting(100, 3).start().await;
    let token = Token::of("user_1");
    created(&app, &token, &with_key("a")).await;
    let other = with(with_key("a"), &json!({ "file_name": "other.png" }));
    for _ in 0..2 {
        let answer = create(&app, &token, &other).await;
        answer.assert_error(400, "bad_request");
    }
    let answer = create(&app, &token, &other).await;
    answer.assert_error(429, "rate_limited");
    assert_eq!(remaining(&app, &token, "daily").await, 99);
}

#[actix_web::test]
async fn a_key_does_not_change_the_order_of_the_policies() {
    let app = with_policies(["signed-in", "burst", "member"])
        .policy("burst", rate_limit().per(["user"]).limit(2))
        .start()
        .await;
    let token = Token::of("user_1");
    for (body, code) in [
        (with_key("a"), "workspace_forbidden"),
        (png(), "workspace_forbidden"),
        (with_key("a"), "rate_limited"),
        (png(), "rate_limited"),
    ] {
        let answer = create_at(&app, "/imgwire/ws_9", &token, &body).await;
        assert_eq!(answer.code(), code, "{answer:?}");
    }
}

#[actix_web::test]
async fn a_repeated_key_with_other_parameters_is_refused() {
    let route = upload_route(ROUTE, ["signed-in", "member"])
        .client_metadata(["alt"])
        .metadata(json!({ "at": "string(request.time)" }));
    let app = gate().route_with(route).start().await;
    let token = Token::of("user_1");
    let full = with(
        with_key("a"),
        &json!({ "hash_sha256": "1", "purpose": "p", "custom_metadata": { "alt": "x" } }),
    );
    let image = created(&app, &token, &full).await;
    for change in [
        json!({ "file_name": "other.png" }),
        json!({ "mime_type": "image/jpeg" }),
        json!({ "mime_type": null }),
        json!({ "content_length": 1 }),
        json!({ "hash_sha256": "2" }),
        json!({ "hash_sha256": null }),
        json!({ "purpose": "q" }),
        json!({ "custom_metadata": { "alt": "y" } }),
        json!({ "custom_metadata": { "alt": true } }),
        json!({ "custom_metadata": null }),
    ] {
        let answer = create(&app, &token, &with(full.clone(), &change)).await;
        answer.assert_error(400, "bad_request");
        assert_eq!(
            answer.json["message"],
            "\"idempotency_key\" was used for another upload; send a new key, or the same parameters",
            "{change}"
        );
    }
    // What does not reach Imgwire is no parameter, and neither is the server's own metadata.
    for change in [
        json!({ "unknown": 1 }),
        json!({ "mime_type": "IMAGE/PNG" }),
        json!({ "custom_metadata": { "alt": "x", "dropped": 1 } }),
    ] {
        let answer = create(&app, &token, &with(full.clone(), &change)).await;
        assert_eq!(id(&answer), image, "{change}");
    }
    assert_eq!(app.imgwire.images(ENVIRONMENT).len(), 1);
}

#[actix_web::test]
async fn a_key_is_free_after_the_deletion_of_its_image() {
    let app = counting(2, 100).start().await;
    let token = Token::of("user_1");
    let first = created(&app, &token, &with_key("a")).await;
    assert_eq!(delete(&app, &token, &first).await, 204);
    let other = with(with_key("a"), &json!({ "file_name": "other.png" }));
    let second = created(&app, &token, &other).await;
    assert_ne!(first, second);
    assert_eq!(created(&app, &token, &other).await, second);
    assert_eq!(remaining(&app, &token, "daily").await, 0);
}

#[actix_web::test]
async fn a_key_of_another_user_workspace_or_route_is_another_key() {
    let app = gate()
        .route_with(upload_route("/other/{workspace}", ["signed-in", "member"]))
        .route_with(upload_route("/mine", ["signed-in"]))
        .start()
        .await;
    let of = |user| Token::of(user).with("workspaces", json!(["ws_1", "ws_2"]));
    let mut images = HashSet::new();
    for (user, at) in [
        ("user_1", WORKSPACE),
        ("user_2", WORKSPACE),
        ("user_1", "/imgwire/ws_2"),
        ("user_1", "/other/ws_1"),
        ("user_1", "/mine"),
        ("user_2", "/mine"),
    ] {
        let first = id(&create_at(&app, at, &of(user), &with_key("a")).await);
        let again = id(&create_at(&app, at, &of(user), &with_key("a")).await);
        assert_eq!(first, again);
        assert!(images.insert(first), "{user} {at}");
    }
    let keys: HashSet<_> = app
        .imgwire
        .images(ENVIRONMENT)
        .iter()
        .map(|image| image["idempotency_key"].to_string())
        .collect();
    assert_eq!(keys.len(), images.len());
    assert!(!keys.contains("\"a\""));
}

#[actix_web::test]
async fn a_key_is_remembered_after_a_restart() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&counting(1, 100), imgwire.url());
    let mut images = HashSet::new();
    for _ in 0..2 {
        let mut gate = GateProcess::start(&config, &[], "info").await;
        let request = awc::Client::default().post(format!("{}{WORKSPACE}{CREATE}", gate.url()));
        let request = request.bearer_auth(Token::of("user_1").sign());
        let mut response = request.send_json(&with_key("a")).await.unwrap();
        assert_eq!(response.status(), 200);
        let answer: Value = serde_json::from_slice(&response.body().await.unwrap()).unwrap();
        images.insert(answer["image"]["id"].to_string());
        gate.signal("-TERM");
        gate.end().await;
    }
    assert_eq!(images.len(), 1);
    assert_eq!(imgwire.images(ENVIRONMENT).len(), 1);
}

#[actix_web::test]
async fn concurrent_requests_with_one_key_get_one_image_and_use_one_unit() {
    let app = counting(2, 100).start().await;
    let token = Token::of("user_1");
    app.imgwire.misbehave_next_at(
        Endpoint::Upload,
        [Misbehaviour::Slow(Duration::from_millis(300))],
    );
    let body = with_key("a");
    let answers = join_all((0..10).map(|_| create(&app, &token, &body))).await;
    let images: HashSet<_> = answers.iter().map(id).collect();
    assert_eq!(images.len(), 1);
    assert_eq!(app.imgwire.images(ENVIRONMENT).len(), 1);
    assert_eq!(remaining(&app, &token, "daily").await, 1);
}

#[actix_web::test]
async fn requests_that_lose_the_race_for_a_key_repeat_the_upload() {
    let app = counting(2, 100).start().await;
    // Requests with other parameters never get the image of the winner.
    for round in 0..5 {
        let mine = with_key(&format!("{round}"));
        let theirs = with(mine.clone(), &json!({ "file_name": "other.png" }));
        let user = Token::of(&format!("user_{round}"));
        let answers =
            join_all([&mine, &theirs, &mine, &theirs].map(|body| create(&app, &user, body))).await;
        let created: HashSet<_> = answers
            .iter()
            .filter(|answer| answer.status == 200)
            .map(id)
            .collect();
        assert_eq!(created.len(), 1, "{answers:?}");
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            answer.assert_error(400, "bad_request");
        }
        assert_eq!(remaining(&app, &user, "daily").await, 1);
    }
}

#[actix_web::test]
async fn another_image_for_a_repeated_key_is_deleted_and_not_returned() {
    let app = counting(5, 100).imgwire("retries", 0).start().await;
    let token = Token::of("user_1");
    let first = created(&app, &token, &with_key("a")).await;
    app.imgwire.change(|scenario| {
        scenario.undocumented.idempotency_scope = IdempotencyScope::Nothing;
    });
    let answer = create(&app, &token, &with_key("a")).await;
    answer.assert_error(500, "imgwire_failed");
    let images = app.imgwire.images(ENVIRONMENT);
    assert_eq!(images.len(), 1);
    assert_eq!(images[0]["id"], first);
    assert_eq!(remaining(&app, &token, "daily").await, 4);
}

#[actix_web::test]
async fn a_key_whose_image_was_deleted_past_the_gate_becomes_free() {
    let app = counting(5, 100).start().await;
    let token = Token::of("user_1");
    let first = created(&app, &token, &with_key("a")).await;
    let url = format!("{}/api/v1/images/{first}", app.imgwire.url());
    let deleting = awc::Client::default()
        .delete(url)
        .bearer_auth(SERVER_API_KEY);
    assert_eq!(deleting.send().await.unwrap().status(), 200);
    let answer = create(&app, &token, &with_key("a")).await;
    answer.assert_error(500, "imgwire_failed");
    assert_eq!(app.imgwire.images(ENVIRONMENT).len(), 0);
    let second = created(&app, &token, &with_key("a")).await;
    assert_ne!(first, second);
    assert_eq!(app.imgwire.images(ENVIRONMENT).len(), 1);
}

#[actix_web::test]
async fn a_client_that_is_denied_learns_nothing_about_keys() {
    let app = gate().start().await;
    let token = Token::of("user_1");
    created(&app, &token, &with_key("a")).await;
    let other = with(with_key("a"), &json!({ "file_name": "other.png" }));
    let former = Token::of("user_1").with("workspaces", json!([]));
    for body in [with_key("a"), other] {
        let answer = create(&app, &former, &body).await;
        answer.assert_error(403, "workspace_forbidden");
        let request = app.request(Method::POST, &format!("{WORKSPACE}{CREATE}"));
        let answer = request.json(&body).await;
        answer.assert_error(401, "not_signed_in");
    }
    assert_eq!(app.imgwire.asked_at(Endpoint::Upload), 1);
}

#[actix_web::test]
async fn a_repeated_key_gets_the_last_place_which_its_upload_without_an_answer_holds() {
    let app = holding(storage().per(["user"]).max_images(1))
        .imgwire("retries", 0)
        .start()
        .await;
    let token = Token::of("user_1");
    let body = with_key("a");
    app.imgwire
        .misbehave_next_at(Endpoint::Upload, [Misbehaviour::BreakOff]);
    let lost = create(&app, &token, &body).await;
    lost.assert_error(500, "imgwire_failed");
    let other = create(&app, &token, &png()).await;
    other.assert_error(429, "storage_full");
    created(&app, &token, &body).await;
    assert_eq!(held(&app, "user_1").await[1..], [1, 1]);
}
