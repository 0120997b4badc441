//! Files that differ from what the client declared.

use std::{collections::HashMap, time::Duration};

use actix_web::http::Method;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::{
    helpers::{Emulator, TestApp, Token, eventually, upload_route},
    process::{GateProcess, write_config},
    upload_records::{
        found, image_ids, lines, opened, png, png_of, put, put_png, recording, state,
    },
};

const GIF: &[u8] = b"GIF89a\x01\0\x01\0";

fn gif_of(size: usize) -> Vec<u8> {
    let mut bytes = GIF.to_vec();
    bytes.resize(size, 0);
    bytes
}

#[actix_web::test]
async fn every_file_of_another_type_or_size_is_found_and_no_honest_one() {
    const UPLOADS: usize = 240;
    const HONEST: usize = 40;
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&recording(), imgwire.url());
    let gate = GateProcess::start(&config, &[], "info").await;
    let uploads = (0..UPLOADS).map(|number| {
        let gate = gate.url();
        async move {
            let (image, url) = opened(&gate, "/mine", "user_1", &png()).await;
            let (content_type, bytes) = match number {
                0..HONEST => ("image/png", png_of(67)),
                // The type says nothing about the bytes.
                _ if number % 4 == 0 => ("image/png", gif_of(67)),
                _ if number % 4 == 1 => ("image/gif", gif_of(67)),
                _ if number % 4 == 2 => ("image/png", png_of(68)),
                _ => ("image/png", png_of(50_000 - number)),
            };
            assert_eq!(put(&url, content_type, bytes).await, 200);
            (image, number)
        }
    });
    let uploads = stream::iter(uploads).buffer_unordered(16);
    let uploads: HashMap<String, usize> = uploads.collect().await;
    let exported = async || {
        let url = format!("{}/images/export", gate.management());
        let mut answer = awc::Client::default().get(url).send().await.unwrap();
        let body = answer.body().limit(1 << 20).await.unwrap();
        lines(std::str::from_utf8(&body).unwrap())
    };
    eventually("all are settled", async || {
        let records = exported().await;
        records.len() == UPLOADS && records.iter().all(|record| record["state"] == "ready")
    })
    .await;
    let differs = |record: &Value| record["real"] != record["declared"];
    let reported: Vec<_> = gate
        .lines()
        .into_iter()
        .filter(|line| line["message"] == "upload differs from what was declared")
        .map(|line| {
            assert_eq!(line["level"], "WARN");
            assert_eq!(line["declared"], "image/png, 67 bytes");
            uploads[line["image_id"].as_str().unwrap()]
        })
        .collect();
    assert_eq!(reported.len(), UPLOADS - HONEST);
    assert!(reported.iter().all(|number| *number >= HONEST));
    for record in exported().await {
        let is_honest = uploads[record["image"].as_str().unwrap()] < HONEST;
        assert_eq!(differs(&record), !is_honest, "{record}");
    }
    assert_eq!(image_ids(&imgwire).len(), UPLOADS);
}

async fn deleting() -> TestApp {
    let route = upload_route("/mine", ["signed-in"]).set("on_mismatch", "delete");
    let app = recording().route_with(route).start().await;
    app.imgwire
        .change(|scenario| scenario.processing_milliseconds = 0);
    app
}

#[actix_web::test]
async fn a_route_can_delete_files_that_differ() {
    let app = deleting().await;
    let (honest, url) = opened(&app.url, "/mine", "user_1", &png()).await;
    put_png(&url).await;
    let (other_size, url) = opened(&app.url, "/mine", "user_1", &png()).await;
    assert_eq!(put(&url, "image/png", png_of(68)).await, 200);
    let (other_type, url) = opened(&app.url, "/mine", "user_1", &png()).await;
    assert_eq!(put(&url, "image/png", gif_of(67)).await, 200);
    // Only what the client declared can differ.
    let body = json!({ "file_name": "a" });
    let (undeclared, url) = opened(&app.url, "/mine", "user_1", &body).await;
    assert_eq!(put(&url, "image/gif", gif_of(70)).await, 200);
    // Another route reports only.
    let (reported, url) = opened(&app.url, "/imgwire/ws_1", "user_1", &png()).await;
    assert_eq!(put(&url, "image/png", png_of(68)).await, 200);
    app.clock.advance(Duration::from_secs(60));
    for (image, expected) in [
        (&honest, "ready"),
        (&other_size, "deleted"),
        (&other_type, "deleted"),
        (&undeclared, "ready"),
        (&reported, "ready"),
    ] {
        eventually(expected, async || state(&app, image).await == expected).await;
    }
    assert_eq!(image_ids(&app.imgwire), [honest, undeclared, reported]);
}

#[actix_web::test]
async fn a_user_does_not_get_a_file_that_is_to_be_deleted() {
    let app = deleting().await;
    let (image, url) = opened(&app.url, "/mine", "user_1", &png()).await;
    assert_eq!(put(&url, "image/png", png_of(68)).await, 200);
    let path = format!("/mine/api/v1/images/{image}");
    let request = app.request(Method::GET, &path);
    let answer = request.bearer(&Token::of("user_1").sign()).send().await;
    answer.assert_error(404, "not_found");
    eventually("the deletion", async || {
        state(&app, &image).await == "deleted" && image_ids(&app.imgwire).is_empty()
    })
    .await;
}

#[actix_web::test]
async fn a_file_that_imgwire_does_not_delete_stays_open_until_it_does() {
    use crate::helpers::{Endpoint, Misbehaviour};

    let app = deleting().await;
    let (image, url) = opened(&app.url, "/mine", "user_1", &png()).await;
    assert_eq!(put(&url, "image/png", png_of(68)).await, 200);
    let refused = Misbehaviour::Status(403, None);
    app.imgwire.misbehave_at(Endpoint::Delete, Some(refused));
    app.clock.advance(Duration::from_secs(60));
    eventually("an attempt", async || {
        app.imgwire.asked_at(Endpoint::Delete) == 1
    })
    .await;
    assert_eq!(state(&app, &image).await, "open");
    app.imgwire.misbehave_at(Endpoint::Delete, None);
    app.clock.advance(Duration::from_secs(60));
    eventually("the deletion", async || {
        state(&app, &image).await == "deleted"
    })
    .await;
}

#[actix_web::test]
async fn the_owner_keeps_an_image_that_changes_after_it_was_ready() {
    let app = deleting().await;
    app.imgwire
        .change(|scenario| scenario.undocumented.put_replaces_file = true);
    let (image, url) = opened(&app.url, "/mine", "user_1", &png()).await;
    put_png(&url).await;
    app.clock.advance(Duration::from_secs(60));
    eventually("it is ready", async || state(&app, &image).await == "ready").await;
    assert_eq!(put(&url, "image/png", png_of(100)).await, 200);
    let path = format!("/mine/api/v1/images/{image}");
    let request = app.request(Method::GET, &path);
    let answer = request.bearer(&Token::of("user_1").sign()).send().await;
    assert_eq!(answer.json["size_bytes"], 100);
    eventually("the record", async || {
        found(&app, &format!("image={image}")).await[0]["real"]["size"] == 100
    })
    .await;
    assert_eq!(image_ids(&app.imgwire), [image]);
}
