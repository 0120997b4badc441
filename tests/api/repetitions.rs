//! Repeated idempotency keys, and the recovery of uploads without an answer.

use std::time::Duration;

use futures_util::future::join;
use serde_json::{Value, json};

use crate::{
    helpers::{Emulator, Endpoint, Misbehaviour, TestApp, eventually, within},
    process::{GateProcess, write_config},
    recoveries::{MINUTE, export, impatient, kill_during, restarting, states},
    upload_records::{delete_past_the_gate, image_ids, opened, upload},
};

fn with_key(key: &str) -> Value {
    json!({ "file_name": "user_1", "idempotency_key": key })
}

#[actix_web::test]
async fn a_kill_during_a_repetition_leaves_no_second_image() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&restarting(), imgwire.url());
    let (slow, trickle) = (Duration::from_millis(800), Duration::from_millis(5));
    for (key, endpoint, how) in [
        // Imgwire has not done anything yet.
        ("a", Endpoint::Upload, Misbehaviour::Slow(slow)),
        // It has created a second image, and its answer is on the way.
        ("b", Endpoint::Upload, Misbehaviour::Trickle(trickle)),
        // The gate deletes the second image.
        ("c", Endpoint::Delete, Misbehaviour::Hang),
    ] {
        let mut gate = GateProcess::start(&config, &[], "info").await;
        let (image, _) = opened(&gate.url(), "/mine", "user_1", &with_key(key)).await;
        gate.signal("-TERM");
        gate.end().await;
        delete_past_the_gate(&imgwire, &image).await;
        let asked = imgwire.asked_at(endpoint);
        let has_begun = async || imgwire.asked_at(endpoint) > asked;
        kill_during(with_key(key), &config, &imgwire, (endpoint, how), has_begun).await;
        let gate = GateProcess::start(&config, &[], "info").await;
        eventually("only records of deleted images", async || {
            let records = export(&gate).await;
            records.iter().all(|record| record["state"] == "deleted")
        })
        .await;
        assert!(image_ids(&imgwire).is_empty(), "{key}");
    }
}

/// Uploads, and gets no answer from Imgwire, although it has created the image.
async fn lose(app: &TestApp, key: &str) {
    let how = Misbehaviour::BreakOff;
    app.imgwire.misbehave_at(Endpoint::Upload, Some(how));
    let answer = upload(&app.url, "/mine", "user_1", &with_key(key)).await;
    answer.assert_error(500, "imgwire_failed");
    app.imgwire.misbehave_at(Endpoint::Upload, None);
}

#[actix_web::test]
async fn recovery_leaves_an_upload_alone_while_it_is_repeated() {
    let app = impatient()
        .imgwire("timeout", "5s")
        .imgwire("deadline", "5s");
    let app = app.start().await;
    lose(&app, "b").await;
    app.clock.advance(MINUTE);
    let is_deleted = async || image_ids(&app.imgwire).is_empty();
    within(MINUTE, "recovery", is_deleted).await;
    let deletions = app.imgwire.asked_at(Endpoint::Delete);
    lose(&app, "a").await;
    app.clock.advance(Duration::from_secs(12));
    let slow = Misbehaviour::Slow(Duration::from_secs(3));
    app.imgwire.misbehave_next_at(Endpoint::Upload, [slow]);
    let asked = app.imgwire.asked_at(Endpoint::Upload);
    let body = with_key("a");
    let repeating = opened(&app.url, "/mine", "user_1", &body);
    // The first upload is due while the second request waits for Imgwire, and recovery looks once per second.
    let becoming_due = async {
        eventually("the call", async || {
            app.imgwire.asked_at(Endpoint::Upload) > asked
        })
        .await;
        app.clock.advance(Duration::from_secs(10));
    };
    let ((image, _), ()) = join(repeating, becoming_due).await;
    assert_eq!(image_ids(&app.imgwire), [image]);
    assert_eq!(app.imgwire.asked_at(Endpoint::Delete), deletions);
}

#[actix_web::test]
async fn a_repetition_does_not_get_an_image_that_recovery_deletes() {
    let app = impatient()
        .imgwire("timeout", "3s")
        .imgwire("deadline", "3s");
    let app = app.start().await;
    lose(&app, "a").await;
    let lost = image_ids(&app.imgwire).remove(0);
    // Recovery has named the image, and Imgwire takes long to delete it.
    let slow = Misbehaviour::Slow(Duration::from_secs(1));
    app.imgwire.misbehave_at(Endpoint::Delete, Some(slow));
    app.clock.advance(MINUTE);
    eventually("its deletion begins", async || {
        app.imgwire.asked_at(Endpoint::Delete) > 0
    })
    .await;
    let (image, _) = opened(&app.url, "/mine", "user_1", &with_key("a")).await;
    assert_ne!(image, lost);
    eventually("the lost image is deleted", async || {
        image_ids(&app.imgwire) == [image.clone()]
    })
    .await;
    let mut states = states(&app).await;
    states.sort_by_key(ToString::to_string);
    assert_eq!(states, ["deleted", "open"]);
}

#[actix_web::test]
async fn a_repeated_upload_without_an_answer_has_one_record_and_keeps_its_image() {
    let app = impatient().start().await;
    lose(&app, "a").await;
    let (image, _) = opened(&app.url, "/mine", "user_1", &with_key("a")).await;
    let (again, _) = opened(&app.url, "/mine", "user_1", &with_key("a")).await;
    assert_eq!(image, again);
    // The first request might still have been at work until now.
    app.clock.advance(MINUTE);
    eventually("one record", async || states(&app).await == ["open"]).await;
    assert_eq!(image_ids(&app.imgwire), [image]);
    assert_eq!(app.imgwire.asked_at(Endpoint::Delete), 0);
}
