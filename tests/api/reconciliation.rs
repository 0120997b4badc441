//! `imgwire-gate images reconcile` compares every record with Imgwire.

use std::time::Duration;

use actix_web::http::Method;
use futures_util::{StreamExt as _, future::join_all, stream};
use serde_json::{Value, json};

use crate::{
    helpers::{Emulator, Endpoint, Misbehaviour, TestApp, Token, eventually, storage, within},
    process::{GateProcess, program, text, write_config},
    storage::{file, held, holding},
    upload_records::{
        delete_past_the_gate, found, lines, opened, png, png_of, put, put_png, recording, state,
    },
    uploads::{created, with_policies},
};

/// Starts a reconciliation, and returns the path of the job.
pub(crate) async fn reconcile(app: &TestApp) -> String {
    let request = app.request_management(Method::POST, "/images/reconcile");
    let answer = request.send().await;
    assert_eq!(answer.status, 202, "{answer:?}");
    format!("/jobs/{}", answer.json["job"].as_str().unwrap())
}

pub(crate) async fn done(app: &TestApp, job: &str) -> Value {
    let mut progress = Value::Null;
    eventually("the reconciliation", async || {
        progress = app.manage(job).await.json;
        progress["done"] == true
    })
    .await;
    progress
}

async fn start() -> TestApp {
    let app = recording().start().await;
    app.imgwire.change(|scenario| {
        scenario.processing_milliseconds = 0;
        scenario.undocumented.put_replaces_file = true;
    });
    app
}

async fn ready(app: &TestApp, user: &str) -> (String, String) {
    let (image, url) = opened(&app.url, "/mine", user, &png()).await;
    put_png(&url).await;
    app.clock.advance(Duration::from_secs(10));
    eventually("it is ready", async || state(app, &image).await == "ready").await;
    (image, url)
}

#[actix_web::test]
async fn everything_that_changed_past_the_gate_is_found() {
    let app = start().await;
    let (same, _) = ready(&app, "user_1").await;
    let (deleted, _) = ready(&app, "user_1").await;
    let (replaced, url) = ready(&app, "user_1").await;
    delete_past_the_gate(&app.imgwire, &deleted).await;
    assert_eq!(put(&url, "image/png", png_of(100)).await, 200);
    let (open, _) = opened(&app.url, "/mine", "user_1", &png()).await;
    let (arrived, url) = opened(&app.url, "/mine", "user_1", &png()).await;
    put_png(&url).await;
    // A token has no image to compare.
    app.ask_as(&Token::of("user_1")).await.assert_token();
    let job = reconcile(&app).await;
    let expected = json!({ "done": true, "checked": 5, "deleted": 1, "corrected": 2, "failed": 0 });
    assert_eq!(done(&app, &job).await, expected);
    for (image, expected) in [
        (&same, "ready"),
        (&deleted, "deleted"),
        (&replaced, "ready"),
        (&open, "open"),
        (&arrived, "ready"),
    ] {
        assert_eq!(state(&app, image).await, expected);
    }
    let record = &found(&app, &format!("image={replaced}")).await[0];
    assert_eq!(record["real"]["size"], 100);
    // Now everything is correct.
    let job = reconcile(&app).await;
    let expected = json!({ "done": true, "checked": 4, "deleted": 0, "corrected": 0, "failed": 0 });
    assert_eq!(done(&app, &job).await, expected);
}

#[actix_web::test]
async fn a_reconciliation_corrects_what_is_held() {
    let app = with_policies(["signed-in", "member"]).start().await;
    let token = Token::of("user_1");
    let kept = created(&app, &token, &file(5)).await;
    let gone = created(&app, &token, &file(5)).await;
    let space = || storage().per(["user"]).max_images(9);
    app.reload(&holding(space())).unwrap();
    assert_eq!(held(&app, "user_1").await, [0, 0, 0]);
    let compare = async || {
        let job = reconcile(&app).await;
        done(&app, &job).await
    };
    // Images from before the policy count, too.
    delete_past_the_gate(&app.imgwire, &gone).await;
    compare().await;
    assert_eq!(held(&app, "user_1").await, [5, 1, 1]);
    // What a condition says about an upload that is long over is not known.
    app.reload(&holding(space().when("subject.id != ''")))
        .unwrap();
    compare().await;
    assert_eq!(held(&app, "user_1").await, [5, 1, 1]);
    delete_past_the_gate(&app.imgwire, &kept).await;
    compare().await;
    assert_eq!(held(&app, "user_1").await, [0, 0, 0]);
}

#[actix_web::test]
async fn a_reconciliation_leaves_half_of_the_reads_to_open_uploads() {
    const MINUTE: Duration = Duration::from_secs(60);
    let reads = json!({ "limit": 10, "period": "1m" });
    let app = recording().set("uploads.reads", reads).start().await;
    app.imgwire
        .change(|scenario| scenario.processing_milliseconds = 0);
    for _ in 0..8 {
        ready(&app, "user_1").await;
        app.clock.advance(MINUTE);
    }
    let asked = || app.imgwire.asked_at(Endpoint::Image);
    let before = asked();
    let job = reconcile(&app).await;
    eventually("half of the reads", async || asked() == before + 5).await;
    ready(&app, "user_1").await;
    assert_eq!(app.manage(&job).await.json["done"], false);
    app.clock.advance(MINUTE);
    assert!(done(&app, &job).await["checked"].as_u64() >= Some(8));
}

#[actix_web::test]
async fn one_reconciliation_runs_at_a_time() {
    let app = start().await;
    ready(&app, "user_1").await;
    let slow = Misbehaviour::Slow(Duration::from_millis(500));
    app.imgwire.misbehave_at(Endpoint::Image, Some(slow));
    let first = reconcile(&app).await;
    assert_eq!(reconcile(&app).await, first);
    done(&app, &first).await;
    let later = reconcile(&app).await;
    assert_ne!(later, first);
    done(&app, &later).await;
    let unknown = "/jobs/00000000-0000-4000-8000-000000000000";
    assert_eq!(app.manage(unknown).await.status, 404);
}

#[actix_web::test]
async fn an_image_that_cannot_be_read_is_tried_in_three_rounds_and_counted_as_failed() {
    let app = start().await;
    let (image, _) = ready(&app, "user_1").await;
    let asked = || app.imgwire.asked_at(Endpoint::Image);
    let before = asked();
    let down = Misbehaviour::Status(503, None);
    app.imgwire.misbehave_at(Endpoint::Image, Some(down));
    let job = reconcile(&app).await;
    eventually("the second round", async || asked() == before + 2).await;
    assert_eq!(app.manage(&job).await.json["done"], false);
    app.clock.advance(Duration::from_secs(10));
    let expected = json!({ "done": true, "checked": 0, "deleted": 0, "corrected": 0, "failed": 1 });
    assert_eq!(done(&app, &job).await, expected);
    assert_eq!(asked(), before + 3);
    assert_eq!(state(&app, &image).await, "ready");
}

#[actix_web::test]
async fn a_reconciliation_survives_kills_in_its_middle() {
    const IMAGES: usize = 400;
    let imgwire = Emulator::start().unwrap();
    imgwire.change(|scenario| scenario.processing_milliseconds = 0);
    let (_folder, config) = write_config(&recording(), imgwire.url());
    let mut gate = GateProcess::start(&config, &[], "info").await;
    let uploads = (0..IMAGES).map(|_| {
        let gate = gate.url();
        async move {
            let (image, url) = opened(&gate, "/mine", "user_1", &png()).await;
            put_png(&url).await;
            image
        }
    });
    let images: Vec<_> = stream::iter(uploads).buffer_unordered(16).collect().await;
    let states = async |gate: &GateProcess| {
        let url = format!("{}/images/export", gate.management());
        let mut answer = awc::Client::default().get(url).send().await.unwrap();
        let body = answer.body().limit(1 << 20).await.unwrap();
        let records = lines(std::str::from_utf8(&body).unwrap());
        let count = |state| {
            let records = records.iter();
            records.filter(|record| record["state"] == state).count()
        };
        (count("ready"), count("deleted"))
    };
    eventually("all are ready", async || states(&gate).await == (IMAGES, 0)).await;
    let every_second = images.iter().step_by(2);
    join_all(every_second.map(|image| delete_past_the_gate(&imgwire, image))).await;
    let slow = Misbehaviour::Slow(Duration::from_millis(100));
    imgwire.misbehave_at(Endpoint::Image, Some(slow));
    let url = format!("{}/images/reconcile", gate.management());
    let request = awc::Client::default().post(url);
    let started: Value = request.send().await.unwrap().json().await.unwrap();
    let job = started["job"].as_str().unwrap().to_owned();
    for found in [30, 120] {
        eventually("the middle", async || states(&gate).await.1 >= found).await;
        gate.signal("-KILL");
        gate.end().await;
        gate = GateProcess::start(&config, &[], "info").await;
        let (_, deleted) = states(&gate).await;
        assert!(deleted < IMAGES / 2, "it was in its middle: {deleted}");
    }
    let mut progress = Value::Null;
    within(Duration::from_secs(60), "the end", async || {
        let url = format!("{}/jobs/{job}", gate.management());
        let request = awc::Client::default().get(url);
        progress = request.send().await.unwrap().json().await.unwrap();
        progress["done"] == true
    })
    .await;
    assert_eq!(states(&gate).await, (IMAGES / 2, IMAGES / 2));
    assert_eq!(progress["failed"], 0);
    // Each image was checked once, or found just before a kill, and then it is not counted again.
    let [checked, found] = ["checked", "deleted"].map(|key| progress[key].as_u64().unwrap());
    let missed = IMAGES as u64 / 2 - found;
    assert_eq!(checked + missed, IMAGES as u64, "{progress}");
}

#[actix_web::test]
async fn the_command_waits_for_the_end_and_prints_what_was_found() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&recording().imgwire("retries", 0), imgwire.url());
    let gate = GateProcess::start(&config, &[], "info").await;
    let (image, _) = opened(&gate.url(), "/mine", "user_1", &png()).await;
    opened(&gate.url(), "/mine", "user_1", &png()).await;
    delete_past_the_gate(&imgwire, &image).await;
    let images = async |arguments: &[&str]| {
        let mut command = program(&[]);
        command.arg("images").args(arguments).arg("--config");
        command.arg(&config);
        let run = actix_web::web::block(move || command.output());
        run.await.unwrap().unwrap()
    };
    let output = images(&["reconcile", "--wait"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let printed = text(&output.stdout);
    let (job, rest) = printed.split_once('\n').unwrap();
    let rows: Vec<Vec<_>> = rest
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let expected = [
        ["done", "yes"],
        ["checked", "2"],
        ["deleted", "1"],
        ["corrected", "0"],
        ["failed", "0"],
    ];
    assert_eq!(rows, expected, "{printed}");
    let job = job.strip_prefix("job ").unwrap();
    let again = images(&["job", job]).await;
    assert_eq!(text(&again.stdout), rest);
    let started = images(&["reconcile"]).await;
    assert!(text(&started.stdout).starts_with("job "), "{started:?}");
}
