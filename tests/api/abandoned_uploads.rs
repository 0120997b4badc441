//! Uploads whose file does not arrive.

use std::time::Duration;

use serde_json::json;

use crate::{
    helpers::{Endpoint, Gate, Misbehaviour, TestApp, eventually, upload_route},
    upload_records::{
        found, image_ids, opened, png, put, put_png, reads, recording, state, upload, uploaded,
    },
};

/// Uploads at `/mine` are abandoned after half a minute.
fn impatient() -> Gate {
    let route = upload_route("/mine", ["signed-in"]).set("abandon_after", "30s");
    recording().route_with(route)
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(800)).await;
}

async fn read_times(app: &TestApp, image: &str, times: usize) {
    eventually(&format!("read {times}"), async || {
        reads(&app.imgwire, image) == times
    })
    .await;
}

#[actix_web::test]
async fn an_abandoned_upload_is_read_once_more_and_deleted() {
    let app = impatient().start().await;
    let abandoned = uploaded(&app, "/mine", "user_1").await;
    let (other, _) = opened(&app.url, "/imgwire/ws_1", "user_1", &png()).await;
    app.clock.advance(Duration::from_secs(24));
    read_times(&app, &abandoned, 1).await;
    assert_eq!(state(&app, &abandoned).await, "open");
    // The next read would be after 9.6 s, but it is abandoned before.
    app.clock.advance(Duration::from_secs(7));
    eventually("the deletion", async || {
        state(&app, &abandoned).await == "abandoned"
    })
    .await;
    assert_eq!(reads(&app.imgwire, &abandoned), 2);
    assert_eq!(image_ids(&app.imgwire), std::slice::from_ref(&other));
    let record = &found(&app, &format!("image={abandoned}")).await[0];
    assert_eq!(record["real"], json!({ "mimeType": null, "size": null }));
    // The default is one hour.
    app.clock.advance(Duration::from_secs(58 * 60));
    pause().await;
    assert_eq!(state(&app, &other).await, "open");
    app.clock.advance(Duration::from_secs(2 * 60));
    eventually("the deletion", async || {
        state(&app, &other).await == "abandoned"
    })
    .await;
    assert_eq!(reads(&app.imgwire, &abandoned), 2);
    assert_eq!(app.imgwire.asked_at(Endpoint::Delete), 2);
}

#[actix_web::test]
async fn a_file_that_arrives_in_the_last_moment_is_kept() {
    let app = impatient().start().await;
    // One is ready when it is read, and one is still processed.
    let (ready, url) = opened(&app.url, "/mine", "user_1", &png()).await;
    put_png(&url).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let (processed, url) = opened(&app.url, "/mine", "user_1", &png()).await;
    app.clock.advance(Duration::from_secs(20));
    eventually("the first is noticed", async || {
        state(&app, &ready).await == "ready"
    })
    .await;
    read_times(&app, &processed, 1).await;
    app.imgwire
        .change(|scenario| scenario.processing_milliseconds = 60_000);
    put_png(&url).await;
    app.clock.advance(Duration::from_secs(15));
    read_times(&app, &processed, 2).await;
    pause().await;
    assert_eq!(state(&app, &processed).await, "open");
    assert_eq!(reads(&app.imgwire, &processed), 2);
    app.imgwire
        .change(|scenario| scenario.processing_milliseconds = 0);
    app.clock.advance(Duration::from_secs(30));
    eventually("the other is noticed", async || {
        state(&app, &processed).await == "ready"
    })
    .await;
    assert_eq!(image_ids(&app.imgwire), [ready, processed]);
    assert_eq!(app.imgwire.asked_at(Endpoint::Delete), 0);
}

#[actix_web::test]
async fn an_abandoned_upload_that_imgwire_does_not_delete_is_tried_again() {
    let app = impatient().imgwire("retries", 0).start().await;
    let image = uploaded(&app, "/mine", "user_1").await;
    let down = Misbehaviour::Status(503, None);
    app.imgwire.misbehave_at(Endpoint::Delete, Some(down));
    app.clock.advance(Duration::from_secs(31));
    eventually("an attempt", async || {
        app.imgwire.asked_at(Endpoint::Delete) == 1
    })
    .await;
    pause().await;
    assert_eq!(state(&app, &image).await, "open");
    assert_eq!(app.imgwire.asked_at(Endpoint::Delete), 1);
    app.imgwire.misbehave_at(Endpoint::Delete, None);
    app.clock.advance(Duration::from_secs(30));
    eventually("the deletion", async || {
        state(&app, &image).await == "abandoned"
    })
    .await;
    assert!(image_ids(&app.imgwire).is_empty());
}

#[actix_web::test]
async fn the_idempotency_key_and_the_url_of_an_abandoned_upload_are_free() {
    let app = impatient().start().await;
    let mut body = png();
    body["idempotency_key"] = json!("a");
    let (first, url) = opened(&app.url, "/mine", "user_1", &body).await;
    app.clock.advance(Duration::from_secs(31));
    eventually("the deletion", async || {
        state(&app, &first).await == "abandoned"
    })
    .await;
    // The file is too late.
    assert_eq!(put(&url, "image/png", vec![0; 67]).await, 404);
    let again = upload(&app.url, "/mine", "user_1", &body).await;
    assert_eq!(again.status, 200, "{again:?}");
    assert_ne!(again.json["image"]["id"], json!(first));
}

#[actix_web::test]
async fn a_reload_changes_when_uploads_are_abandoned() {
    let app = recording().start().await;
    let image = uploaded(&app, "/mine", "user_1").await;
    app.reload(&impatient()).unwrap();
    app.clock.advance(Duration::from_secs(31));
    eventually("the deletion", async || {
        state(&app, &image).await == "abandoned"
    })
    .await;
}
