//! Open uploads are followed until their file has arrived and is processed.

use std::{collections::HashMap, time::Duration};

use actix_web::http::Method;
use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::json;

use crate::{
    helpers::{Emulator, Endpoint, Gate, Misbehaviour, TestApp, Token, eventually, within},
    process::{GateProcess, write_config},
    upload_records::{
        delete_past_the_gate, found, lines, opened, png, put_png, reads, recording, state, uploaded,
    },
};

const MINUTE: Duration = Duration::from_secs(60);

async fn without_processing(gate: Gate) -> TestApp {
    let app = gate.start().await;
    app.imgwire
        .change(|scenario| scenario.processing_milliseconds = 0);
    app
}

/// Waits until the gate has read an image so often.
async fn read_times(imgwire: &Emulator, image: &str, times: usize) {
    eventually(&format!("read {times}"), async || {
        reads(imgwire, image) == times
    })
    .await;
}

/// Long enough for a gate that would read now.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(800)).await;
}

#[actix_web::test]
async fn ordinary_uploads_are_noticed_within_five_seconds_with_at_most_three_reads() {
    let app = recording().start().await;
    let uploads = [0_u64, 1_000, 3_500, 5_000, 9_000].map(|arrives_after| {
        let app = &app;
        async move {
            let (image, url) = opened(&app.url, "/mine", "user_1", &png()).await;
            tokio::time::sleep(Duration::from_millis(arrives_after)).await;
            put_png(&url).await;
            let processed = Timestamp::now() + Duration::from_millis(500);
            eventually("the file is noticed", async || {
                state(app, &image).await == "ready"
            })
            .await;
            let all = app.imgwire.reads();
            let last = all.iter().rfind(|read| read.image == image).unwrap();
            let late = last.at.duration_since(processed).as_secs_f64();
            assert!(late <= 5.0, "{arrives_after}: {late}");
            image
        }
    });
    for image in join_all(uploads).await {
        let count = reads(&app.imgwire, &image);
        assert!((1..=3).contains(&count), "{count}");
        let record = &found(&app, &format!("image={image}")).await[0];
        let expected = json!({ "mimeType": "image/png", "size": 67 });
        assert_eq!(record["real"], expected);
    }
    // A settled upload is not read again.
    let settled = app.imgwire.reads().len();
    app.clock.advance(10 * MINUTE);
    pause().await;
    assert_eq!(app.imgwire.reads().len(), settled);
}

#[actix_web::test]
async fn an_older_upload_is_read_less_often_and_noticed_within_half_of_its_age() {
    let app = without_processing(recording()).await;
    let (image, url) = opened(&app.url, "/mine", "user_1", &png()).await;
    app.clock.advance(20 * MINUTE);
    read_times(&app.imgwire, &image, 1).await;
    put_png(&url).await;
    app.clock.advance(5 * MINUTE);
    pause().await;
    assert_eq!(reads(&app.imgwire, &image), 1);
    app.clock.advance(5 * MINUTE);
    eventually("the file is noticed", async || {
        state(&app, &image).await == "ready"
    })
    .await;
    assert_eq!(reads(&app.imgwire, &image), 2);
}

#[actix_web::test]
async fn an_upload_in_quarantine_and_a_deleted_one_are_noticed() {
    let app = without_processing(recording()).await;
    let (quarantined, url) = opened(&app.url, "/mine", "user_1", &png()).await;
    let deleted = uploaded(&app, "/mine", "user_1").await;
    app.imgwire.change(|scenario| scenario.quarantine = true);
    put_png(&url).await;
    delete_past_the_gate(&app.imgwire, &deleted).await;
    app.clock.advance(MINUTE);
    eventually("both are noticed", async || {
        state(&app, &quarantined).await == "quarantined" && state(&app, &deleted).await == "deleted"
    })
    .await;
}

#[actix_web::test]
async fn a_deleted_image_that_imgwire_still_shows_is_noticed() {
    let app = recording().start().await;
    app.imgwire
        .change(|scenario| scenario.undocumented.read_shows_deleted = true);
    let image = uploaded(&app, "/mine", "user_1").await;
    delete_past_the_gate(&app.imgwire, &image).await;
    app.clock.advance(MINUTE);
    eventually("it is noticed", async || {
        state(&app, &image).await == "deleted"
    })
    .await;
}

#[actix_web::test]
async fn a_read_of_a_user_settles_an_upload_and_notices_a_deletion() {
    let app = without_processing(recording()).await;
    let (image, url) = opened(&app.url, "/mine", "user_1", &png()).await;
    put_png(&url).await;
    let path = format!("/mine/api/v1/images/{image}");
    let token = Token::of("user_1").sign();
    let shown = app.request(Method::GET, &path).bearer(&token).send().await;
    assert_eq!(shown.json["status"], "READY");
    eventually("the record", async || state(&app, &image).await == "ready").await;
    delete_past_the_gate(&app.imgwire, &image).await;
    let gone = app.request(Method::GET, &path).bearer(&token).send().await;
    gone.assert_error(404, "not_found");
    // The gate reads it twice more.
    assert_eq!(state(&app, &image).await, "ready");
    app.clock.advance(Duration::from_secs(5));
    eventually("the record", async || {
        state(&app, &image).await == "deleted"
    })
    .await;
    assert_eq!(reads(&app.imgwire, &image), 4);
}

#[actix_web::test]
async fn an_open_upload_that_is_missing_in_one_read_only_is_followed_on() {
    let app = without_processing(recording()).await;
    let (image, url) = opened(&app.url, "/mine", "user_1", &png()).await;
    let missing = Misbehaviour::Status(404, None);
    app.imgwire.misbehave_next_at(Endpoint::Image, [missing]);
    app.clock.advance(Duration::from_secs(5));
    read_times(&app.imgwire, &image, 1).await;
    assert_eq!(state(&app, &image).await, "open");
    put_png(&url).await;
    eventually("it is ready", async || state(&app, &image).await == "ready").await;
    assert_eq!(reads(&app.imgwire, &image), 2);
}

#[actix_web::test]
async fn slow_reads_do_not_delay_those_of_other_uploads() {
    const SLOW: usize = 40;
    let app = recording().start().await;
    app.imgwire.change(|scenario| {
        scenario.processing_milliseconds = 0;
    });
    let slow = Misbehaviour::Slow(Duration::from_secs(4));
    app.imgwire
        .misbehave_next_at(Endpoint::Image, vec![slow; SLOW]);
    for _ in 0..SLOW {
        uploaded(&app, "/mine", "user_1").await;
    }
    app.clock.advance(Duration::from_secs(5));
    eventually("the slow reads", async || {
        app.imgwire.asked_at(Endpoint::Image) == SLOW
    })
    .await;
    let (image, url) = opened(&app.url, "/mine", "user_1", &png()).await;
    put_png(&url).await;
    app.clock.advance(Duration::from_secs(5));
    let noticed = async || state(&app, &image).await == "ready";
    within(Duration::from_secs(2), "the file is noticed", noticed).await;
}

#[actix_web::test]
async fn an_image_that_is_missing_in_one_read_only_stays() {
    let app = without_processing(recording()).await;
    let (image, url) = opened(&app.url, "/mine", "user_1", &png()).await;
    put_png(&url).await;
    app.clock.advance(MINUTE);
    eventually("it is ready", async || state(&app, &image).await == "ready").await;
    let missing = Misbehaviour::Status(404, None);
    app.imgwire.misbehave_next_at(Endpoint::Image, [missing]);
    let path = format!("/mine/api/v1/images/{image}");
    let request = app.request(Method::GET, &path);
    let shown = request.bearer(&Token::of("user_1").sign()).send().await;
    shown.assert_error(404, "not_found");
    pause().await;
    app.clock.advance(MINUTE);
    read_times(&app.imgwire, &image, 3).await;
    app.clock.advance(10 * MINUTE);
    pause().await;
    assert_eq!(state(&app, &image).await, "ready");
    assert_eq!(reads(&app.imgwire, &image), 3);
}

#[actix_web::test]
async fn a_gate_that_restarts_follows_on() {
    let imgwire = Emulator::start().unwrap();
    let gate = || recording().imgwire("base_url", imgwire.url());
    let mut app = gate().start().await;
    let (image, url) = opened(&app.url, "/mine", "user_1", &png()).await;
    app.begin_stop();
    let folder = app.stopped().await;
    put_png(&url).await;
    let app = gate().start_in(folder).await;
    eventually("the file is noticed", async || {
        state(&app, &image).await == "ready"
    })
    .await;
    assert_eq!(reads(&imgwire, &image), 1);
}

#[actix_web::test]
async fn a_gate_that_stops_during_a_read_ends_at_once_and_the_next_one_reads_at_once() {
    let imgwire = Emulator::start().unwrap();
    let gate = || recording().imgwire("base_url", imgwire.url());
    let mut app = gate().start().await;
    let image = uploaded(&app, "/mine", "user_1").await;
    imgwire.misbehave_at(Endpoint::Image, Some(Misbehaviour::Hang));
    app.clock.advance(Duration::from_secs(5));
    read_times(&imgwire, &image, 1).await;
    let stopping = Timestamp::now();
    app.begin_stop();
    let folder = app.stopped().await;
    let took = Timestamp::now().duration_since(stopping);
    assert!(took.as_secs_f64() < 2.0, "{took}");
    imgwire.misbehave_at(Endpoint::Image, None);
    let app = gate().start_in(folder).await;
    // Its clock is that of the machine.
    app.clock.advance(Duration::from_secs(5));
    read_times(&imgwire, &image, 2).await;
}

#[actix_web::test]
async fn an_outage_of_imgwire_is_one_line_and_uploads_are_followed_again_after_it() {
    const UPLOADS: usize = 6;
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&recording(), imgwire.url());
    let gate = GateProcess::start(&config, &[], "info").await;
    imgwire.misbehave_at(Endpoint::Image, Some(Misbehaviour::Status(503, None)));
    for _ in 0..UPLOADS {
        let (_, url) = opened(&gate.url(), "/mine", "user_1", &png()).await;
        put_png(&url).await;
        // So that several batches fail.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    eventually("a read of each", async || {
        imgwire.asked_at(Endpoint::Image) >= UPLOADS
    })
    .await;
    imgwire.misbehave_at(Endpoint::Image, None);
    let exported = async || {
        let url = format!("{}/images/export", gate.management());
        let mut answer = awc::Client::default().get(url).send().await.unwrap();
        lines(std::str::from_utf8(&answer.body().await.unwrap()).unwrap())
    };
    eventually("all are noticed", async || {
        let records = exported().await;
        records.iter().all(|record| record["state"] == "ready")
    })
    .await;
    let log = gate.lines();
    let count = |message: &str| log.iter().filter(|line| line["message"] == message).count();
    assert_eq!(count("uploads cannot be followed"), 1);
    assert_eq!(count("uploads are followed again"), 1);
    let warnings = log.iter().filter(|line| line["level"] == "WARN");
    assert_eq!(warnings.count(), 1, "{}", gate.log());
}

#[actix_web::test]
async fn all_reads_together_stay_under_their_rate() {
    const UPLOADS: usize = 60;
    const LIMIT: usize = 10;
    let gate = recording().set("uploads.reads", json!({ "limit": LIMIT, "period": "1s" }));
    let app = gate.start().await;
    for _ in 0..UPLOADS {
        uploaded(&app, "/mine", "user_1").await;
    }
    app.clock.advance(Duration::from_secs(5));
    eventually("reads of all", async || {
        let images: HashMap<_, _> = app
            .imgwire
            .reads()
            .into_iter()
            .map(|read| (read.image, read.at))
            .collect();
        images.len() == UPLOADS
    })
    .await;
    let times: Vec<_> = app
        .imgwire
        .reads()
        .into_iter()
        .map(|read| read.at)
        .collect();
    for (index, start) in times.iter().enumerate() {
        let end = *start + Duration::from_millis(700);
        let within = times[index..].iter().filter(|at| **at < end).count();
        // No second has more. Some reads are delayed on the way.
        assert!(within <= LIMIT, "{within} reads within 0.7 seconds");
    }
    let took = times[times.len() - 1].duration_since(times[0]);
    assert!(took.as_secs_f64() > 3.5, "{took}");
}
