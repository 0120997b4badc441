//! Erasures of a person's images and records.

use std::time::Duration;

use actix_web::http::Method;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    events::{app_with_events, delivered, sending},
    helpers::{Emulator, Endpoint, Gate, Misbehaviour, TestApp, Token, eventually},
    postgres::Postgres,
    process::{GateProcess, write_config},
    upload_records::{
        erase, found, image_ids, lines, png, recording, upload, uploaded, uploaded_past_the_gate,
    },
};

async fn progress(app: &TestApp, job: &str) -> Value {
    let answer = app.manage(job).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json
}

async fn done(app: &TestApp, job: &str) -> Value {
    eventually("the erasure", async || {
        progress(app, job).await["done"] == true
    })
    .await;
    progress(app, job).await
}

#[actix_web::test]
async fn an_erasure_deletes_the_images_and_the_records_of_one_user() {
    let app = recording().start().await;
    let other = uploaded(&app, "/mine", "user_2").await;
    for route in ["/mine", "/mine", "/imgwire/ws_1"] {
        uploaded(&app, route, "user_1").await;
    }
    let gone = uploaded(&app, "/mine", "user_1").await;
    let deletion = app.request(Method::DELETE, &format!("/mine/api/v1/images/{gone}"));
    let answer = deletion.bearer(&Token::of("user_1").sign()).send().await;
    assert_eq!(answer.status, 204, "{answer:?}");
    // One token whose image is known, and one that was not used.
    let token = app.ask_as(&Token::of("user_1")).await.json["uploadToken"].clone();
    let (by_token, _) = uploaded_past_the_gate(&app.imgwire, token.as_str()).await;
    assert_eq!(
        found(&app, &format!("image={by_token}")).await[0]["subject"],
        "user_1"
    );
    app.ask_as(&Token::of("user_1")).await.assert_token();

    let job = erase(&app, "user_1").await;
    assert_eq!(
        done(&app, &job).await,
        json!({ "done": true, "deleted": 4, "failed": 0 })
    );
    assert_eq!(found(&app, "subject=user_1").await, [json!(null); 0]);
    assert_eq!(image_ids(&app.imgwire), std::slice::from_ref(&other));
    assert_eq!(
        found(&app, &format!("image={other}")).await[0]["subject"],
        "user_2"
    );
    // What the user uploads from then on stays.
    let later = uploaded(&app, "/mine", "user_1").await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(
        found(&app, "subject=user_1").await[0]["image"],
        json!(later)
    );
}

#[actix_web::test]
async fn an_erasure_of_a_user_without_records_is_done_too() {
    let app = recording().start().await;
    let job = erase(&app, "user_1").await;
    assert_eq!(
        done(&app, &job).await,
        json!({ "done": true, "deleted": 0, "failed": 0 })
    );
}

#[actix_web::test]
async fn the_app_hears_which_images_an_erasure_deleted() {
    let service = app_with_events();
    let app = sending(&service).start().await;
    let image = uploaded(&app, "/mine", "user_1").await;
    let job = erase(&app, "user_1").await;
    assert_eq!(done(&app, &job).await["deleted"], 1);
    let events = delivered(&service, 1).await;
    assert_eq!(events[0].kind(), "image.deleted");
    assert_eq!(events[0].image(), image);
    assert_eq!(found(&app, "subject=user_1").await, [json!(null); 0]);
}

#[actix_web::test]
async fn an_image_that_is_gone_at_imgwire_counts_as_deleted() {
    let app = recording().start().await;
    let image = uploaded(&app, "/mine", "user_1").await;
    let url = format!("{}/api/v1/images/{image}", app.imgwire.url());
    let deletion = awc::Client::default().delete(url);
    let deleted = deletion
        .bearer_auth(crate::helpers::SERVER_API_KEY)
        .send()
        .await;
    assert!(deleted.unwrap().status().is_success());
    let job = erase(&app, "user_1").await;
    assert_eq!(done(&app, &job).await["deleted"], 1);
    assert_eq!(found(&app, "subject=user_1").await, [json!(null); 0]);
}

#[actix_web::test]
async fn a_deletion_that_fails_is_tried_in_five_rounds_and_then_counted_as_failed() {
    let app = recording().imgwire("retries", 0).start().await;
    let kept = uploaded(&app, "/mine", "user_1").await;
    let down = Misbehaviour::Status(503, None);
    app.imgwire.misbehave_at(Endpoint::Delete, Some(down));
    let job = erase(&app, "user_1").await;
    let asked = || app.imgwire.asked_at(Endpoint::Delete);
    // The second round follows by itself. The pauses before the others grow, up to five minutes.
    eventually("the second round", async || asked() == 2).await;
    for (round, pause) in [(3, 5), (4, 50), (5, 240)] {
        // The round ends, and its pause begins.
        tokio::time::sleep(Duration::from_secs(1)).await;
        app.clock.advance(Duration::from_secs(pause));
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(asked(), round - 1);
        assert_eq!(
            progress(&app, &job).await,
            json!({ "done": false, "deleted": 0, "failed": 1 })
        );
        app.clock.advance(Duration::from_secs(60));
        eventually("the next round", async || asked() == round).await;
    }
    assert_eq!(
        done(&app, &job).await,
        json!({ "done": true, "deleted": 0, "failed": 1 })
    );
    assert_eq!(asked(), 5);
    assert_eq!(found(&app, "subject=user_1").await[0]["image"], json!(kept));
    // The operator can try again.
    app.imgwire.misbehave_at(Endpoint::Delete, None);
    let again = erase(&app, "user_1").await;
    assert_eq!(
        done(&app, &again).await,
        json!({ "done": true, "deleted": 1, "failed": 0 })
    );
}

#[actix_web::test]
async fn one_image_that_cannot_be_deleted_does_not_stop_the_others() {
    let app = recording().imgwire("retries", 0).start().await;
    // More than a page of the job, whose records shift while it removes them.
    for _ in 0..8 {
        uploaded(&app, "/mine", "user_1").await;
    }
    app.imgwire
        .misbehave_at(Endpoint::Delete, Some(Misbehaviour::Status(503, None)));
    let job = erase(&app, "user_1").await;
    eventually("some failures", async || {
        app.imgwire.asked_at(Endpoint::Delete) >= 2
    })
    .await;
    app.imgwire.misbehave_at(Endpoint::Delete, None);
    app.clock.advance(Duration::from_secs(1));
    assert_eq!(
        done(&app, &job).await,
        json!({ "done": true, "deleted": 8, "failed": 0 })
    );
    assert!(image_ids(&app.imgwire).is_empty());
}

#[actix_web::test]
async fn an_upload_without_an_answer_is_erased_when_it_is_settled() {
    let app = recording().imgwire("retries", 0).start().await;
    app.imgwire
        .misbehave_at(Endpoint::Upload, Some(Misbehaviour::BreakOff));
    let answer = upload(&app.url, "/mine", "user_1", &png()).await;
    answer.assert_error(500, "imgwire_failed");
    assert_eq!(image_ids(&app.imgwire).len(), 1);
    app.imgwire.misbehave_at(Endpoint::Upload, None);
    let job = erase(&app, "user_1").await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(progress(&app, &job).await["done"], false);
    app.clock.advance(Duration::from_secs(60));
    done(&app, &job).await;
    assert!(image_ids(&app.imgwire).is_empty());
    assert_eq!(found(&app, "subject=user_1").await, [json!(null); 0]);
}

#[actix_web::test]
async fn an_erasure_survives_a_kill_in_its_middle() {
    const IMAGES: usize = 12;
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&recording(), imgwire.url());
    let mut gate = GateProcess::start(&config, &[], "info").await;
    for _ in 0..IMAGES {
        assert_eq!(
            upload(&gate.url(), "/mine", "user_1", &png()).await.status,
            200
        );
    }
    assert_eq!(
        upload(&gate.url(), "/mine", "user_2", &png()).await.status,
        200
    );
    let path = "/subjects/user_1/images";
    let request = awc::Client::default().delete(format!("{}{path}", gate.management()));
    let started: Value = request.send().await.unwrap().json().await.unwrap();
    let job = started["job"].as_str().unwrap().to_owned();
    for left in [9, 5] {
        eventually("the next deletions", async || {
            image_ids(&imgwire).len() <= left
        })
        .await;
        gate.signal("-KILL");
        gate.end().await;
        assert!(image_ids(&imgwire).len() > 1, "it was in its middle");
        gate = GateProcess::start(&config, &[], "info").await;
    }
    let mut progress = Value::Null;
    eventually("the end", async || {
        let url = format!("{}/jobs/{job}", gate.management());
        progress = awc::Client::default()
            .get(url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        progress["done"] == true
    })
    .await;
    assert_eq!(progress["failed"], 0);
    // An image that was deleted just before the kill is counted again.
    let deleted = progress["deleted"].as_u64().unwrap();
    let images = IMAGES as u64;
    assert!((images - 2..=images + 2).contains(&deleted), "{progress}");
    assert_eq!(image_ids(&imgwire).len(), 1);
    let url = format!("{}/images/export", gate.management());
    let mut answer = awc::Client::default().get(url).send().await.unwrap();
    let export = answer.body().await.unwrap();
    let records = lines(std::str::from_utf8(&export).unwrap());
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["subject"], "user_2");
    let said = |message: &str| {
        gate.lines()
            .iter()
            .filter(|line| line["message"] == message)
            .count()
    };
    assert_eq!((said("erasure started"), said("erasure finished")), (1, 1));
}

fn sharing(postgres: &Postgres, imgwire: &Emulator) -> Gate {
    recording()
        .store("main", json!({ "url": postgres.url() }))
        .imgwire("base_url", imgwire.url())
}

#[actix_web::test]
async fn one_of_several_gates_does_an_erasure_and_another_takes_it_over() {
    let Some(postgres) = Postgres::here() else {
        return;
    };
    let postgres = postgres.await;
    let imgwire = Emulator::start().unwrap();
    let gate = sharing(&postgres, &imgwire);
    let (_folder, config) = write_config(&gate, imgwire.url());
    let first = GateProcess::start(&config, &[], "info").await;
    let uploads = (0..6).map(|_| async {
        let url = first.url();
        upload(&url, "/mine", "user_1", &png()).await
    });
    for answer in join_all(uploads).await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    // The process has the job, and is stuck in it.
    imgwire.misbehave_at(Endpoint::Delete, Some(Misbehaviour::Hang));
    let url = format!("{}/subjects/user_1/images", first.management());
    let answer = crate::helpers::Request(awc::Client::default().delete(url))
        .send()
        .await;
    let job = format!("/jobs/{}", answer.json["job"].as_str().unwrap());
    eventually("the first deletion", async || {
        imgwire.asked_at(Endpoint::Delete) == 1
    })
    .await;
    let second = sharing(&postgres, &imgwire).start().await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(
        imgwire.asked_at(Endpoint::Delete),
        1,
        "the second gate waits"
    );
    drop(first);
    imgwire.misbehave_at(Endpoint::Delete, None);
    second.clock.advance(Duration::from_secs(60));
    assert_eq!(
        done(&second, &job).await,
        json!({ "done": true, "deleted": 6, "failed": 0 })
    );
    assert_eq!(found(&second, "subject=user_1").await, [json!(null); 0]);
    assert!(image_ids(&imgwire).is_empty());
    // No request was made twice.
    assert_eq!(imgwire.asked_at(Endpoint::Delete), 7);
}
