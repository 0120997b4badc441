//! Token routes with a `store` record which token went to whom.

use serde_json::json;

use crate::{
    helpers::{Gate, ROUTE, TestApp, Token, eventually, quota},
    upload_records::{found, recording},
};

#[actix_web::test]
async fn a_token_is_recorded_with_its_user_workspace_purpose_and_file() {
    let app = Gate::standard()
        .route_with(
            json!({ "path": ROUTE, "policies": ["signed-in", "member", "daily"], "store": "main" }),
        )
        .start()
        .await;
    let request = app.ask().bearer(&Token::of("user_1").sign());
    let body = json!({
        "purpose": "avatar", "file": { "name": "a.png", "mimeType": "image/png", "size": 7 },
    });
    request.json(&body).await.assert_token();
    let records = found(&app, "workspace=ws_1").await;
    assert_eq!(records.len(), 1);
    let mut record = records[0].clone();
    assert!(record["token"].take().is_string());
    record["createdAt"].take();
    let expected = json!({
        "image": null, "token": null, "subject": "user_1", "workspace": "ws_1", "route": ROUTE, "purpose": "avatar",
        "declared": { "mimeType": "image/png", "size": 7 }, "real": { "mimeType": null, "size": null },
        "state": "issued", "createdAt": null,
    });
    assert_eq!(record, expected);
}

#[actix_web::test]
async fn the_purpose_of_a_route_is_recorded() {
    let route =
        json!({ "path": ROUTE, "policies": ["signed-in"], "store": "main", "purpose": "avatar" });
    let app = Gate::accepting(["app"]).route_with(route).start().await;
    app.ask_as(&Token::of("user_1")).await.assert_token();
    assert_eq!(found(&app, "subject=user_1").await[0]["purpose"], "avatar");
}

#[actix_web::test]
async fn pooled_tokens_are_recorded_too() {
    let pool = json!({ "size": 4, "max_age": "1m" });
    let app = recording().imgwire("pool", pool).start().await;
    for count in 1..=6 {
        app.ask_as(&Token::of("user_1")).await.assert_token();
        assert_eq!(found(&app, "subject=user_1").await.len(), count);
    }
    assert!(
        app.metric("imgwire_gate_pool_events_total{event=\"handed_out\"}")
            .await
            > 0.0
    );
}

#[actix_web::test]
async fn denied_and_failed_requests_are_not_recorded() {
    let route = json!({ "path": ROUTE, "policies": ["signed-in", "daily"], "store": "main" });
    let app = Gate::accepting(["app"])
        .policy("daily", quota().per(["user"]).limit(1))
        .route_with(route)
        .imgwire("retries", 0)
        .start()
        .await;
    app.imgwire
        .misbehave_next([crate::helpers::Misbehaviour::Status(503, None)]);
    let token = Token::of("user_1");
    app.ask_as(&token).await.assert_error(500, "imgwire_failed");
    app.ask_as(&token).await.assert_token();
    app.ask_as(&token)
        .await
        .assert_error(429, "quota_exhausted");
    assert_eq!(found(&app, "subject=user_1").await.len(), 1);
}

/// Nothing is durable while the file is elsewhere.
async fn break_the_store(app: &TestApp) -> std::path::PathBuf {
    let file = app.folder.path().join("gate.db");
    let moved = app.folder.path().join("moved.db");
    std::fs::rename(file, &moved).unwrap();
    moved
}

#[actix_web::test]
async fn a_token_that_cannot_be_recorded_does_not_leave_and_its_unit_is_given_back() {
    let quotas = tempfile::tempdir().unwrap();
    let other = format!("sqlite:{}", quotas.path().join("quotas.db").display());
    let route = json!({ "path": ROUTE, "policies": ["signed-in", "daily"], "store": "main" });
    let app = Gate::accepting(["app"])
        .store("counters", json!({ "url": other }))
        .policy("daily", quota().per(["user"]).limit(2).store("counters"))
        .route_with(route)
        .start()
        .await;
    let token = Token::of("user_1");
    app.ask_as(&token).await.assert_token();
    let moved = break_the_store(&app).await;
    for _ in 0..3 {
        app.ask_as(&token).await.assert_error(500, "internal");
    }
    let used = app.manage("/quota/daily?key=user_1").await;
    assert_eq!(used.json["used"], 1, "{used:?}");
    std::fs::rename(moved, app.folder.path().join("gate.db")).unwrap();
    eventually("the store's return", async || {
        app.ask_as(&token).await.status == 200
    })
    .await;
    app.ask_as(&token)
        .await
        .assert_error(429, "quota_exhausted");
    // What failed may have been recorded, too, but no token left without it.
    assert!(found(&app, "subject=user_1").await.len() >= 2);
}
