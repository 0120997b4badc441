//! Who uploaded this: records on the management listener.

use std::time::Duration;

use actix_web::http::Method;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    helpers::{Endpoint, Gate, Misbehaviour, ROUTE, Request, TestApp, Token, eventually},
    upload_records::{found, lines, recording, upload, uploaded, uploaded_past_the_gate},
};

/// A PNG of one pixel.
const PNG: &[u8] =
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89";

#[actix_web::test]
async fn an_uploaded_image_is_found_by_its_id_its_user_and_its_workspace() {
    let app = recording().start().await;
    let body = json!({
        "file_name": "a.png", "mime_type": "image/png", "content_length": 67, "purpose": "avatar",
    });
    let answer = upload(&app.url, "/imgwire/ws_1", "user_1", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let image = answer.json["image"]["id"].as_str().unwrap().to_owned();
    let others = uploaded(&app, "/mine", "user_2").await;
    let mut record = found(&app, &format!("image={image}")).await.remove(0);
    let created_at = record["createdAt"].take();
    assert!(created_at.as_str().unwrap().ends_with('Z'), "{created_at}");
    let expected = json!({
        "image": image, "token": null, "subject": "user_1", "workspace": "ws_1", "route": "/imgwire/{workspace}",
        "purpose": "avatar", "declared": { "mimeType": "image/png", "size": 67 },
        "real": { "mimeType": null, "size": null }, "state": "open", "createdAt": null,
    });
    assert_eq!(record, expected);
    let ids = async |query: &str| -> Vec<Value> {
        let records = found(&app, query).await;
        records
            .into_iter()
            .map(|record| record["image"].clone())
            .collect()
    };
    assert_eq!(ids("subject=user_1").await, [json!(image)]);
    assert_eq!(ids("workspace=ws_1").await, [json!(image)]);
    assert_eq!(ids("subject=user_2").await, [json!(others)]);
    assert_eq!(ids("subject=user_2&workspace=ws_1").await, [json!(null); 0]);
    assert_eq!(
        ids(&format!("subject=user_2&image={image}")).await,
        [json!(null); 0]
    );
    assert_eq!(ids("subject=user_3").await, [json!(null); 0]);
    assert_eq!(ids("image=unknown").await, [json!(null); 0]);
}

#[actix_web::test]
async fn a_deleted_image_is_still_found() {
    let app = recording().start().await;
    let image = uploaded(&app, "/mine", "user_1").await;
    let path = format!("/mine/api/v1/images/{image}");
    let deletion = app.request(Method::DELETE, &path);
    let answer = deletion.bearer(&Token::of("user_1").sign()).send().await;
    assert_eq!(answer.status, 204, "{answer:?}");
    let records = found(&app, &format!("image={image}")).await;
    assert_eq!(records[0]["state"], "deleted");
    assert_eq!(records[0]["subject"], "user_1");
}

#[actix_web::test]
async fn a_page_has_a_hundred_records_the_newest_first() {
    let app = recording().start().await;
    let mut images = Vec::new();
    for _ in 0..105 {
        images.push(uploaded(&app, "/mine", "user_1").await);
    }
    images.reverse();
    let page = async |query: &str| -> Vec<String> {
        let records = found(&app, &format!("subject=user_1{query}")).await;
        let ids = records
            .iter()
            .map(|record| record["image"].as_str().unwrap().to_owned());
        ids.collect()
    };
    assert_eq!(page("").await, images[..100]);
    assert_eq!(page("&page=1").await, images[..100]);
    assert_eq!(page("&page=2").await, images[100..]);
    assert_eq!(page("&page=3").await, [""; 0]);
    assert_eq!(page("&page=18446744073709551615").await, [""; 0]);
}

#[actix_web::test]
async fn a_query_that_names_nothing_to_find_is_refused_with_what_to_write() {
    let app = recording().start().await;
    for (query, message) in [
        ("", "name what to find"),
        ("?", "name what to find"),
        ("?page=2", "name what to find"),
        ("?subject=a&page=0", "a number of at least 1"),
        ("?subject=a&page=x", "a number of at least 1"),
        ("?subject=a&other=b", "the query can have"),
        ("?subject=a&subject=b", "the query can have"),
        ("?subject=", "subject is empty"),
        ("?workspace=%0a", "workspace contains a control character"),
        ("?image=a/b", "image is not an id of Imgwire"),
        ("?token=", "token is not an id of Imgwire"),
    ] {
        let answer = app.manage(&format!("/images{query}")).await;
        answer.assert_error(400, "bad_request");
        let text = answer.json["message"].as_str().unwrap();
        assert!(text.contains(message), "{query}: {text}");
    }
}

/// Gets a token, with a credential that is valid for a century.
async fn token(app: &TestApp, user: &str) -> String {
    let user = Token::of(user).with("exp", json!(4_900_000_000_u64));
    let answer = app.ask_as(&user).await;
    answer.assert_token();
    answer.json["uploadToken"].as_str().unwrap().to_owned()
}

#[actix_web::test]
async fn the_user_of_an_image_that_came_through_a_token_is_found() {
    let app = recording().start().await;
    let first = token(&app, "user_1").await;
    let second = token(&app, "user_2").await;
    let issued = found(&app, "subject=user_1").await;
    assert_eq!(issued.len(), 1);
    assert_eq!(issued[0]["state"], "issued");
    assert_eq!(issued[0]["route"], ROUTE);
    assert_eq!(issued[0]["image"], json!(null));
    let (pending, _) = uploaded_past_the_gate(&app.imgwire, Some(&second)).await;
    let (ready, url) = uploaded_past_the_gate(&app.imgwire, Some(&first)).await;
    let put = awc::Client::default()
        .put(url)
        .insert_header(("content-type", "image/png"));
    assert_eq!(put.send_body(PNG).await.unwrap().status(), 200);
    eventually("the image is ready", async || {
        app.imgwire.images(crate::helpers::ENVIRONMENT)[1]["status"] == "READY"
    })
    .await;
    let asked = || app.imgwire.asked_at(Endpoint::Image);
    // The first time the gate asks Imgwire, and from then on it knows.
    for _ in 0..2 {
        let records = found(&app, &format!("image={ready}")).await;
        assert_eq!(records.len(), 1);
        let record = &records[0];
        assert_eq!(
            (&record["subject"], &record["image"]),
            (&json!("user_1"), &json!(ready))
        );
        assert_eq!(record["token"], issued[0]["token"]);
        assert_eq!(record["state"], "ready");
        assert_eq!(
            record["real"],
            json!({ "mimeType": "image/png", "size": PNG.len() })
        );
        assert_eq!(asked(), 1);
    }
    let records = found(&app, &format!("image={pending}")).await;
    assert_eq!(records[0]["subject"], "user_2");
    assert_eq!(records[0]["state"], "open");
    let id = issued[0]["token"].as_str().unwrap();
    assert_eq!(
        found(&app, &format!("token={id}")).await[0]["image"],
        json!(ready)
    );
}

#[actix_web::test]
async fn an_image_of_nobody_is_not_found_and_a_failing_imgwire_is_a_failure() {
    let app = recording().imgwire("retries", 0).start().await;
    let (image, _) = uploaded_past_the_gate(&app.imgwire, None).await;
    assert_eq!(
        found(&app, &format!("image={image}")).await,
        [json!(null); 0]
    );
    let down = Misbehaviour::Status(503, None);
    app.imgwire.misbehave_at(Endpoint::Image, Some(down));
    let answer = app.manage(&format!("/images?image={image}")).await;
    answer.assert_error(500, "imgwire_failed");
}

#[actix_web::test]
async fn users_in_paths_and_queries_are_percent_decoded_once() {
    let app = recording().start().await;
    for (user, encoded) in [
        ("auth0|a/b", "auth0%7Ca%2Fb"),
        ("a b+c", "a%20b%2Bc"),
        ("100%25", "100%2525"),
        ("é?&=#", "%C3%A9%3F%26%3D%23"),
    ] {
        uploaded(&app, "/mine", user).await;
        let records = found(&app, &format!("subject={encoded}")).await;
        assert_eq!(records.len(), 1, "{user}");
        assert_eq!(records[0]["subject"], user);
        let job = crate::upload_records::erase(&app, encoded).await;
        eventually("the erasure", async || {
            app.manage(&job).await.json["done"] == true
        })
        .await;
        assert_eq!(app.manage(&job).await.json["deleted"], 1, "{user}");
    }
}

#[actix_web::test]
async fn the_export_has_every_record_on_a_line_the_oldest_first() {
    // More than are in memory at once.
    const RECORDS: usize = 1_005;
    let app = recording().start().await;
    for turn in 0..RECORDS / 15 {
        let requests = (0..15).map(|_| token(&app, "user_1"));
        join_all(requests).await;
        assert!(turn < RECORDS);
    }
    let image = uploaded(&app, "/imgwire/ws_1", "user_2").await;
    let answer = app.manage("/images/export").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/jsonl");
    assert!(answer.text.ends_with('\n'));
    let records = lines(&answer.text);
    assert_eq!(records.len(), RECORDS + 1);
    let times: Vec<_> = records
        .iter()
        .map(|record| record["createdAt"].as_str().unwrap())
        .collect();
    assert!(times.is_sorted_by(
        |one, other| one.parse::<jiff::Timestamp>().unwrap() <= other.parse().unwrap()
    ));
    let last = found(&app, &format!("image={image}")).await;
    assert_eq!(records.last(), last.first());
}

#[actix_web::test]
async fn a_gate_without_records_says_so() {
    let app = Gate::accepting(["app"]).start().await;
    for (method, path) in [
        (Method::GET, "/images?subject=a"),
        (Method::GET, "/images/export"),
        (Method::DELETE, "/subjects/a/images"),
    ] {
        let answer = app.request_management(method, path).send().await;
        answer.assert_error(404, "not_found");
        let message = answer.json["message"].as_str().unwrap();
        assert!(
            message.contains("no route of this gate has a `store`"),
            "{message}"
        );
    }
    let job = "/jobs/0197e9bb-3b6a-4b60-a3a6-6f9a4e7a4a5b";
    app.manage(job).await.assert_error(404, "not_found");
}

#[actix_web::test]
async fn unknown_jobs_and_methods_are_refused() {
    let app = recording().start().await;
    for job in [
        "/jobs/0197e9bb-3b6a-4b60-a3a6-6f9a4e7a4a5b",
        "/jobs/1",
        "/jobs/a%2Fb",
    ] {
        app.manage(job).await.assert_error(404, "not_found");
    }
    for (method, path) in [
        (Method::POST, "/images"),
        (Method::DELETE, "/images/export"),
        (Method::GET, "/subjects/a/images"),
        (Method::DELETE, "/jobs/1"),
    ] {
        let answer = app.request_management(method, path).send().await;
        answer.assert_error(405, "method_not_allowed");
    }
    let empty: Request = app.request_management(Method::DELETE, "/subjects/%0A/images");
    empty.send().await.assert_error(400, "bad_request");
}

#[actix_web::test]
async fn records_that_are_older_than_keep_records_are_removed() {
    let app = recording().set("uploads.keep_records", "30d").start().await;
    token(&app, "user_1").await;
    let kept = uploaded(&app, "/mine", "user_2").await;
    let day = Duration::from_secs(24 * 60 * 60);
    app.clock.advance(29 * day);
    token(&app, "user_3").await;
    // Retention has run by then.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(found(&app, "subject=user_1").await.len(), 1);
    app.clock.advance(2 * day);
    eventually("the old record is removed", async || {
        found(&app, "subject=user_1").await.is_empty()
    })
    .await;
    assert_eq!(found(&app, "subject=user_3").await.len(), 1);
    assert_eq!(found(&app, "subject=user_2").await[0]["image"], json!(kept));
}
