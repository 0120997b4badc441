//! Uploads that Imgwire, the store or the client gives up.

use std::{fs, time::Duration};

use actix_web::http::Method;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    helpers::{
        Billing, ENVIRONMENT, Endpoint, ErrorType, Gate, Misbehaviour, TestApp, Token, eventually,
        quota,
    },
    uploads::{
        CREATE, IMAGES, WORKSPACE, create, created, id, png, remaining, with, with_policies,
    },
};

fn with_key(key: &str) -> Value {
    with(png(), &json!({ "idempotency_key": key }))
}

/// A gate with five units for each user, which asks Imgwire once.
fn counting() -> Gate {
    with_policies(["signed-in", "member", "daily"])
        .policy("daily", quota().per(["user"]).limit(5))
        .imgwire("retries", 0)
        .imgwire("timeout", "500ms")
}

async fn list(app: &TestApp, token: &Token) -> Vec<String> {
    let request = app.request(Method::GET, &format!("{WORKSPACE}{IMAGES}"));
    let answer = request.bearer(&token.sign()).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let images = answer.json.as_array().unwrap().iter();
    images
        .map(|image| image["id"].as_str().unwrap().to_owned())
        .collect()
}

#[actix_web::test]
async fn an_upload_that_imgwire_refuses_leaves_nothing_behind() {
    let app = counting().start().await;
    let token = Token::of("user_1");
    for refusal in [
        Misbehaviour::Refuse(ErrorType::PaymentRequired),
        Misbehaviour::Refuse(ErrorType::OperationNotAllowed),
        Misbehaviour::Status(422, None),
        Misbehaviour::Status(400, None),
    ] {
        app.imgwire.misbehave_next_at(Endpoint::Upload, [refusal]);
        let answer = create(&app, &token, &with_key("a")).await;
        answer.assert_error(500, "imgwire_failed");
        assert_eq!(remaining(&app, &token, "daily").await, 5);
    }
    // The key is free, so it may come with other parameters.
    let other = with(with_key("a"), &json!({ "file_name": "other.png" }));
    created(&app, &token, &other).await;
    assert_eq!(app.imgwire.asked_at(Endpoint::Upload), 5);
    assert_eq!(app.imgwire.images(ENVIRONMENT).len(), 1);
}

#[actix_web::test]
async fn a_refused_upload_does_not_stop_tokens_and_reads() {
    let app = counting().chain(["signed-in"]).start().await;
    let token = Token::of("user_1");
    let image = created(&app, &token, &png()).await;
    app.imgwire
        .change(|scenario| scenario.billing = Billing::StorageUsedUp);
    app.imgwire
        .change(|scenario| scenario.undocumented.tokens_check_capacity = false);
    let answer = create(&app, &token, &png()).await;
    answer.assert_error(500, "imgwire_failed");
    app.ask_as(&token).await.assert_token();
    assert_eq!(list(&app, &token).await, [image]);
    let refused = app
        .metric("imgwire_gate_imgwire_errors_total{error_type=\"PaymentRequiredError\"}")
        .await;
    assert_eq!(refused, 1.0);
    assert_eq!(app.manage("/readyz").await.status, 200);
    let ready = app.manage("/readyz").await;
    assert!(!ready.text.contains("refuses"), "{ready:?}");
}

#[actix_web::test]
async fn an_upload_without_an_answer_is_found_again_by_its_key() {
    for lost in [
        Misbehaviour::BreakOff,
        Misbehaviour::Trickle(Duration::from_millis(50)),
    ] {
        let app = counting().start().await;
        let token = Token::of("user_1");
        app.imgwire.misbehave_next_at(Endpoint::Upload, [lost]);
        let answer = create(&app, &token, &with_key("a")).await;
        answer.assert_error(500, "imgwire_failed");
        // Imgwire has created the image. The client did not get it, so it has not used its unit.
        assert_eq!(app.imgwire.images(ENVIRONMENT).len(), 1);
        assert_eq!(remaining(&app, &token, "daily").await, 5);
        let other = with(with_key("a"), &json!({ "file_name": "other.png" }));
        create(&app, &token, &other)
            .await
            .assert_error(400, "bad_request");

        let image = created(&app, &token, &with_key("a")).await;
        assert_eq!(app.imgwire.images(ENVIRONMENT).len(), 1);
        assert_eq!(app.imgwire.images(ENVIRONMENT)[0]["id"], image);
        assert_eq!(remaining(&app, &token, "daily").await, 4);
        assert_eq!(created(&app, &token, &with_key("a")).await, image);
        assert_eq!(remaining(&app, &token, "daily").await, 4);
    }
}

#[actix_web::test]
async fn a_retry_does_not_create_a_second_image() {
    let app = counting().imgwire("retries", 2).start().await;
    let token = Token::of("user_1");
    app.imgwire.misbehave_next_at(
        Endpoint::Upload,
        [Misbehaviour::BreakOff, Misbehaviour::Status(503, None)],
    );
    let image = created(&app, &token, &png()).await;
    assert_eq!(app.imgwire.asked_at(Endpoint::Upload), 3);
    assert_eq!(app.imgwire.images(ENVIRONMENT).len(), 1);
    assert_eq!(list(&app, &token).await, [image]);
    assert_eq!(remaining(&app, &token, "daily").await, 4);
}

#[actix_web::test]
async fn an_invalid_answer_of_imgwire_is_not_passed_on() {
    let app = counting().start().await;
    let token = Token::of("user_1");
    let image = json!({ "id": "im_1", "status": "PENDING" });
    for body in [
        "<!doctype html>".to_owned(),
        "[]".to_owned(),
        json!({ "image": image }).to_string(),
        json!({ "image": image, "upload_url": "javascript:alert(1)" }).to_string(),
        json!({ "image": { "id": "../x", "status": "PENDING" }, "upload_url": "https://a.example" }).to_string(),
        json!({ "image": { "status": "PENDING" }, "upload_url": "https://a.example" }).to_string(),
    ] {
        app.imgwire.misbehave_next_at(Endpoint::Upload, [Misbehaviour::Body(body.clone())]);
        let answer = create(&app, &token, &png()).await;
        answer.assert_error(500, "imgwire_failed");
        assert_eq!(remaining(&app, &token, "daily").await, 5, "{body}");
    }
    assert!(list(&app, &token).await.is_empty());
}

#[actix_web::test]
async fn only_documented_fields_of_imgwire_reach_the_client() {
    let app = counting().start().await;
    let token = Token::of("user_1");
    let answer = json!({
        "image": {
            "id": "im_1", "status": "PENDING", "width": 0, "exif_data": { "gps": "x" }, "internal": "secret",
            "custom_metadata": { "tenant": "ws_1" },
        },
        "upload_url": "https://store.example/1", "debug": "secret",
    });
    app.imgwire
        .misbehave_next_at(Endpoint::Upload, [Misbehaviour::Body(answer.to_string())]);
    let answer = create(&app, &token, &png()).await;
    let expected = json!({
        "image": { "id": "im_1", "status": "PENDING", "width": 0, "exif_data": {}, "custom_metadata": {} },
        "upload_url": "https://store.example/1",
    });
    assert_eq!(answer.json, expected);
}

/// Sends a request, and resets the connection as soon as Imgwire is asked.
async fn disconnect(app: &TestApp, request: &str, token: &Token, body: &str, endpoint: Endpoint) {
    let address = app.url.trim_start_matches("http://");
    let mut client = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "{request} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        token.sign(),
        body.len()
    );
    let slow = Misbehaviour::Slow(Duration::from_millis(500));
    app.imgwire.misbehave_next_at(endpoint, [slow]);
    client.write_all(head.as_bytes()).await.unwrap();
    eventually("Imgwire is asked", async || {
        app.imgwire.asked_at(endpoint) == 1
    })
    .await;
    let reset = Some(Duration::ZERO);
    socket2::SockRef::from(&client).set_linger(reset).unwrap();
}

#[actix_web::test]
async fn an_upload_whose_client_disconnects_has_an_owner() {
    let app = counting().imgwire("timeout", "5s").start().await;
    let token = Token::of("user_1");
    let request = format!("POST {WORKSPACE}{CREATE}");
    let body = with_key("a").to_string();
    disconnect(&app, &request, &token, &body, Endpoint::Upload).await;
    eventually("the image has an owner", async || {
        list(&app, &token).await.len() == 1
    })
    .await;
    let image = list(&app, &token).await;
    eventually("the unit is counted", async || {
        remaining(&app, &token, "daily").await == 4
    })
    .await;
    // Its client can ask again for the URL.
    assert_eq!(created(&app, &token, &with_key("a")).await, image[0]);
}

#[actix_web::test]
async fn a_deletion_whose_client_disconnects_is_recorded() {
    let app = counting().imgwire("timeout", "5s").start().await;
    let token = Token::of("user_1");
    let image = created(&app, &token, &with_key("a")).await;
    let request = format!("DELETE {WORKSPACE}{IMAGES}{image}");
    disconnect(&app, &request, &token, "", Endpoint::Delete).await;
    eventually("the image is deleted", async || {
        app.manage(&format!("/images?image={image}")).await.json["images"][0]["state"] == "deleted"
    })
    .await;
    assert!(app.imgwire.images(ENVIRONMENT).is_empty());
    assert_ne!(created(&app, &token, &with_key("a")).await, image);
}

#[actix_web::test]
async fn no_upload_is_created_while_the_store_is_down() {
    let app = counting().start().await;
    let token = Token::of("user_1");
    let image = created(&app, &token, &png()).await;
    let db = app.folder.path().join("gate.db");
    fs::rename(&db, app.folder.path().join("moved.db")).unwrap();
    create(&app, &token, &png())
        .await
        .assert_error(500, "internal");
    create(&app, &token, &with_key("a"))
        .await
        .assert_error(500, "internal");
    for (method, path) in [
        (Method::GET, format!("{IMAGES}{image}")),
        (Method::DELETE, format!("{IMAGES}{image}")),
        (Method::GET, IMAGES.to_owned()),
    ] {
        let request = app.request(method, &format!("{WORKSPACE}{path}"));
        let answer = request.bearer(&token.sign()).send().await;
        answer.assert_error(500, "internal");
    }
    assert_eq!(app.imgwire.asked_at(Endpoint::Upload), 1);
    assert_eq!(app.imgwire.asked_at(Endpoint::Image), 0);
    assert_eq!(app.imgwire.asked_at(Endpoint::Delete), 0);

    fs::rename(app.folder.path().join("moved.db"), &db).unwrap();
    eventually("the store is back", async || {
        create(&app, &token, &png()).await.status == 200
    })
    .await;
    assert_eq!(id(&create(&app, &token, &with_key("b")).await).len(), 36);
}
