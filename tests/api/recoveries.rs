//! Uploads whose request ended without an answer, because the gate, Imgwire or a connection died.

use std::{collections::HashMap, path::Path, time::Duration};

use futures_util::future::{join, join_all};
use serde_json::{Value, json};

use crate::{
    helpers::{
        ENVIRONMENT, Emulator, Endpoint, ErrorType, Gate, Misbehaviour, TestApp, Token, eventually,
    },
    postgres::Postgres,
    process::{GateProcess, write_config},
    upload_records::{CREATE, found, image_ids, lines, png, recording, upload},
};

/// Longer than a request may take.
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// Uploads in vain.
async fn fail(app: &TestApp, how: Misbehaviour) {
    app.imgwire.misbehave_at(Endpoint::Upload, Some(how));
    let answer = upload(&app.url, "/mine", "user_1", &png()).await;
    answer.assert_error(500, "imgwire_failed");
    app.imgwire.misbehave_at(Endpoint::Upload, None);
}

pub(crate) fn impatient() -> Gate {
    recording()
        .imgwire("retries", 0)
        .imgwire("timeout", "300ms")
        .imgwire("deadline", "300ms")
}

pub(crate) async fn states(app: &TestApp) -> Vec<Value> {
    let records = found(app, "subject=user_1").await;
    records
        .into_iter()
        .map(|record| record["state"].clone())
        .collect()
}

#[actix_web::test]
async fn an_image_whose_client_got_no_answer_is_deleted() {
    let app = impatient().start().await;
    fail(&app, Misbehaviour::BreakOff).await;
    assert_eq!(image_ids(&app.imgwire).len(), 1);
    assert_eq!(states(&app).await, ["requested"]);
    // The request that recorded it may still run.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(image_ids(&app.imgwire).len(), 1);
    app.clock.advance(MINUTE);
    eventually("the deletion", async || image_ids(&app.imgwire).is_empty()).await;
    eventually("its record", async || states(&app).await == ["deleted"]).await;
    assert_eq!(app.imgwire.asked_at(Endpoint::Upload), 2);
}

#[actix_web::test]
async fn a_refusal_of_a_call_that_was_sent_again_says_nothing_about_the_first() {
    let app = recording().imgwire("retries", 0).start().await;
    // Only a call on a connection that was used before is sent again. Every worker has one.
    let body = png();
    let others = (0..16).map(|_| upload(&app.url, "/mine", "user_2", &body));
    for answer in join_all(others).await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    app.imgwire.misbehave_next_at(
        Endpoint::Upload,
        [
            Misbehaviour::BreakOff,
            Misbehaviour::Refuse(ErrorType::PaymentRequired),
        ],
    );
    let answer = upload(&app.url, "/mine", "user_1", &png()).await;
    answer.assert_error(500, "imgwire_failed");
    assert_eq!(app.imgwire.asked_at(Endpoint::Upload), 18);
    assert_eq!(image_ids(&app.imgwire).len(), 17);
    assert_eq!(states(&app).await, ["requested"]);
    app.clock.advance(MINUTE);
    eventually("its record", async || states(&app).await == ["deleted"]).await;
    assert_eq!(image_ids(&app.imgwire).len(), 16);
}

#[actix_web::test]
async fn a_rate_limit_of_imgwire_leaves_nothing_to_settle() {
    let app = impatient().start().await;
    fail(&app, Misbehaviour::Status(429, None)).await;
    assert!(states(&app).await.is_empty());
}

#[actix_web::test]
async fn an_upload_that_never_reached_imgwire_leaves_nothing() {
    let app = impatient().start().await;
    for how in [
        Misbehaviour::Hang,
        Misbehaviour::Reset,
        Misbehaviour::Status(503, None),
    ] {
        fail(&app, how).await;
    }
    assert_eq!(states(&app).await, ["requested"; 3]);
    app.clock.advance(MINUTE);
    eventually("the records", async || states(&app).await == ["deleted"; 3]).await;
    assert!(image_ids(&app.imgwire).is_empty());
}

#[actix_web::test]
async fn an_upload_is_settled_only_when_imgwire_says_what_became_of_it() {
    let app = impatient().start().await;
    fail(&app, Misbehaviour::BreakOff).await;
    // None of these says whether the first call created the image.
    for how in [
        Misbehaviour::Status(500, None),
        // It may be at work on the first call.
        Misbehaviour::Status(409, None),
        Misbehaviour::Refuse(ErrorType::InvalidToken),
        Misbehaviour::Refuse(ErrorType::PaymentRequired),
        Misbehaviour::Refuse(ErrorType::OperationNotAllowed),
        Misbehaviour::Hang,
        Misbehaviour::Body("{}".to_owned()),
    ] {
        let asked = app.imgwire.asked_at(Endpoint::Upload);
        app.imgwire.misbehave_at(Endpoint::Upload, Some(how));
        app.clock.advance(MINUTE);
        eventually("another call", async || {
            app.imgwire.asked_at(Endpoint::Upload) > asked
        })
        .await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(states(&app).await, ["requested"]);
    }
    app.imgwire.misbehave_at(Endpoint::Upload, None);
    app.clock.advance(MINUTE);
    eventually("the deletion", async || image_ids(&app.imgwire).is_empty()).await;
}

#[actix_web::test]
async fn a_doubtful_refusal_ends_an_upload_after_a_day() {
    let app = impatient().start().await;
    fail(&app, Misbehaviour::Hang).await;
    let doubtful = Misbehaviour::Status(409, None);
    app.imgwire.misbehave_at(Endpoint::Upload, Some(doubtful));
    app.clock.advance(MINUTE);
    let asked = async || app.imgwire.asked_at(Endpoint::Upload) == 2;
    eventually("the second call", asked).await;
    assert_eq!(states(&app).await, ["requested"]);
    app.clock.advance(24 * 60 * MINUTE);
    eventually("the end", async || states(&app).await.is_empty()).await;
}

#[actix_web::test]
async fn an_image_that_cannot_be_deleted_keeps_its_owner() {
    let app = impatient().start().await;
    fail(&app, Misbehaviour::BreakOff).await;
    app.imgwire
        .misbehave_at(Endpoint::Delete, Some(Misbehaviour::Status(503, None)));
    app.clock.advance(MINUTE);
    eventually("the record", async || states(&app).await == ["open"]).await;
    let image = image_ids(&app.imgwire).remove(0);
    assert_eq!(
        found(&app, &format!("image={image}")).await[0]["subject"],
        "user_1"
    );
}

/// Recovery begins this long after the start.
pub(crate) fn restarting() -> Gate {
    recording().imgwire("timeout", "1s")
}

/// Kills the gate with SIGKILL when `is_time`, while it uploads once and Imgwire misbehaves.
pub(crate) async fn kill_during(
    body: Value,
    config: &Path,
    imgwire: &Emulator,
    (endpoint, how): (Endpoint, Misbehaviour),
    is_time: impl AsyncFn() -> bool,
) {
    let mut gate = GateProcess::start(config, &[], "info").await;
    imgwire.misbehave_at(endpoint, Some(how));
    let url = gate.url();
    let uploading = actix_web::rt::spawn(async move {
        let client = awc::Client::default();
        let request = client.post(format!("{url}/mine{CREATE}"));
        let token = Token::of("user_1").sign();
        request
            .bearer_auth(token)
            .send_json(&body)
            .await
            .map(|answer| answer.status())
    });
    eventually("the time to kill", is_time).await;
    gate.signal("-KILL");
    gate.end().await;
    assert!(
        uploading.await.unwrap().is_err(),
        "the client got no answer"
    );
    imgwire.misbehave_at(endpoint, None);
}

/// Kills the gate during an upload without an idempotency key.
async fn kill(
    config: &Path,
    imgwire: &Emulator,
    how: Misbehaviour,
    is_time: impl AsyncFn() -> bool,
) {
    let body = json!({ "file_name": "user_1" });
    kill_during(body, config, imgwire, (Endpoint::Upload, how), is_time).await;
}

pub(crate) async fn export(gate: &GateProcess) -> Vec<Value> {
    let url = format!("{}/images/export", gate.management());
    let mut answer = awc::Client::default().get(url).send().await.unwrap();
    let body = answer.body().limit(64 << 20).await.unwrap();
    lines(std::str::from_utf8(&body).unwrap())
}

/// Every upload is settled, and every image that exists has a record with the user that its file is named after.
async fn assert_every_image_has_its_owner(gate: &GateProcess, imgwire: &Emulator) {
    eventually("the recovery", async || {
        let records = export(gate).await;
        records.iter().all(|record| record["state"] != "requested")
    })
    .await;
    let records = export(gate).await;
    let owners: HashMap<_, _> = records
        .iter()
        .filter(|record| record["state"] != "deleted")
        .map(|record| (record["image"].as_str().unwrap(), &record["subject"]))
        .collect();
    for image in imgwire.images(ENVIRONMENT) {
        let id = image["id"].as_str().unwrap();
        assert_eq!(
            owners.get(id),
            Some(&&image["original_filename"]),
            "{image}"
        );
    }
}

#[actix_web::test]
async fn a_kill_before_or_during_the_call_to_imgwire_leaves_no_image() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&restarting(), imgwire.url());
    let slow = Duration::from_millis(800);
    let trickle = Duration::from_millis(5);
    for how in [
        // Imgwire has not done anything yet.
        Misbehaviour::Hang,
        Misbehaviour::Slow(slow),
        // It has created the image, and its answer is on the way.
        Misbehaviour::Trickle(trickle),
    ] {
        let asked = imgwire.asked_at(Endpoint::Upload);
        let has_begun = async || imgwire.asked_at(Endpoint::Upload) > asked;
        kill(&config, &imgwire, how.clone(), has_begun).await;
        let gate = GateProcess::start(&config, &[], "info").await;
        assert_every_image_has_its_owner(&gate, &imgwire).await;
        eventually("no image", async || image_ids(&imgwire).is_empty()).await;
        // The record says so a little later.
        eventually("only records of deleted images", async || {
            let records = export(&gate).await;
            records.iter().all(|record| record["state"] == "deleted")
        })
        .await;
    }
}

#[actix_web::test]
async fn a_kill_after_the_answer_of_imgwire_and_before_the_record_leaves_no_image() {
    let imgwire = Emulator::start().unwrap();
    let (folder, config) = write_config(&restarting(), imgwire.url());
    let database = folder.path().join("gate.db");
    let lock = std::cell::RefCell::new(None);
    let slow = Misbehaviour::Slow(Duration::from_millis(800));
    let has_answered = async || {
        if imgwire.asked_at(Endpoint::Upload) == 1 && lock.borrow().is_none() {
            // The intent is on the disk. Nothing else gets there.
            let connection = rusqlite::Connection::open(&database).unwrap();
            connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            *lock.borrow_mut() = Some(connection);
        }
        let has_image = !image_ids(&imgwire).is_empty();
        if has_image {
            // The answer arrives meanwhile.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        has_image
    };
    kill(&config, &imgwire, slow, has_answered).await;
    assert!(lock.take().is_some());
    let gate = GateProcess::start(&config, &[], "info").await;
    assert_eq!(export(&gate).await[0]["state"], "requested");
    assert_every_image_has_its_owner(&gate, &imgwire).await;
    eventually("no image", async || image_ids(&imgwire).is_empty()).await;
}

#[actix_web::test]
async fn repeated_kills_leave_no_image_without_its_owner() {
    const CALLERS: u32 = 12;
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&restarting(), imgwire.url());
    let mut answered = Vec::new();
    for kill in 0..8_u32 {
        let mut gate = GateProcess::start(&config, &[], "info").await;
        let url = gate.url();
        let callers = (0..CALLERS).map(|caller| {
            let url = url.clone();
            async move {
                let user = format!("user_{caller}");
                let token = Token::of(&user).sign();
                let client = awc::Client::default();
                let mut images = Vec::new();
                loop {
                    let path = format!("{url}/mine{}", CREATE);
                    let request = client.post(path).bearer_auth(&token);
                    let sent = request.send_json(&json!({ "file_name": user })).await;
                    let Ok(mut answer) = sent else {
                        return images;
                    };
                    let Ok(body) = answer.json::<Value>().await else {
                        return images;
                    };
                    images.push((
                        user.clone(),
                        body["image"]["id"].as_str().unwrap().to_owned(),
                    ));
                }
            }
        });
        let killer = async {
            tokio::time::sleep(Duration::from_millis(u64::from(40 + 15 * kill))).await;
            gate.signal("-KILL");
        };
        let (images, ()) = join(join_all(callers), killer).await;
        answered.extend(images.into_iter().flatten());
        gate.end().await;
    }
    let gate = GateProcess::start(&config, &[], "info").await;
    assert_every_image_has_its_owner(&gate, &imgwire).await;
    assert!(!answered.is_empty());
    // An image whose client got the answer stays.
    let existing = image_ids(&imgwire);
    for (user, image) in &answered {
        assert!(existing.contains(image), "{image} of {user}");
    }
}

#[actix_web::test]
async fn another_gate_settles_the_uploads_of_a_gate_that_died() {
    let Some(postgres) = Postgres::here() else {
        return;
    };
    let postgres = postgres.await;
    let imgwire = Emulator::start().unwrap();
    let gate = || {
        recording()
            .store("main", json!({ "url": postgres.url() }))
            .imgwire("base_url", imgwire.url())
    };
    let (_folder, config) = write_config(&gate(), imgwire.url());
    let trickle = Misbehaviour::Trickle(Duration::from_millis(5));
    let has_begun = async || !image_ids(&imgwire).is_empty();
    kill(&config, &imgwire, trickle, has_begun).await;
    let again = GateProcess::start(&config, &[], "info").await;
    // The first one may still be at work, for all that the others know.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(image_ids(&imgwire).len(), 1);
    let other = gate().start().await;
    other.clock.advance(MINUTE);
    eventually("the deletion", async || image_ids(&imgwire).is_empty()).await;
    assert_every_image_has_its_owner(&again, &imgwire).await;
    assert_eq!(imgwire.asked_at(Endpoint::Delete), 1);
}
