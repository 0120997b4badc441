//! What Imgwire does not document about uploads. The gate is right whichever way Imgwire behaves, and the questions of
//! `docs/uploads.md` tell one way from the other.

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::{
    helpers::{Answer, ENVIRONMENT, IdempotencyScope, Scenario, TestApp, Token, eventually},
    uploads::{IMAGES, WORKSPACE, create, gate, id, png, with},
};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x02\0\0\0\x03\x08\x02\0\0\0";

async fn start(change: impl FnOnce(&mut Scenario)) -> TestApp {
    let app = gate().start().await;
    app.imgwire.change(change);
    app
}

fn user() -> Token {
    Token::of("user_1")
}

fn url(answer: &Answer) -> &str {
    answer.json["upload_url"].as_str().unwrap()
}

async fn put(url: &str, content_type: &str, bytes: &'static [u8]) -> u16 {
    let request = awc::Client::default().put(url).content_type(content_type);
    let answer = request.send_body(bytes).await.unwrap();
    answer.status().as_u16()
}

async fn image(app: &TestApp, id: &str) -> Value {
    let request = app.request(Method::GET, &format!("{WORKSPACE}{IMAGES}{id}"));
    request.bearer(&user().sign()).send().await.json
}

async fn record(app: &TestApp, id: &str) -> Value {
    let found = app.manage(&format!("/images?image={id}")).await;
    found.json["images"][0].clone()
}

#[actix_web::test]
async fn a_preflight_shows_whether_pages_may_send_the_bytes() {
    for needs_client_key in [false, true] {
        let app = start(|scenario| {
            scenario.undocumented.put_cors_requires_client_key = needs_client_key;
        })
        .await;
        let answer = create(&app, &user(), &png()).await;
        let preflight = awc::Client::default().request(Method::OPTIONS, url(&answer));
        let preflight = preflight
            .insert_header(("origin", "http://localhost:3000"))
            .insert_header(("access-control-request-method", "PUT"))
            .insert_header(("access-control-request-headers", "content-type"))
            .send()
            .await
            .unwrap();
        let headers = preflight.headers();
        let is_allowed = headers.contains_key("access-control-allow-origin");
        assert_eq!(is_allowed, !needs_client_key);
        // A page that may not send the bytes can still remove the image.
        let request = app.request(
            Method::DELETE,
            &format!("{WORKSPACE}{IMAGES}{}", id(&answer)),
        );
        assert_eq!(request.bearer(&user().sign()).send().await.status, 204);
    }
}

#[actix_web::test]
async fn a_lie_about_the_length_is_refused_or_recorded() {
    for is_enforced in [true, false] {
        let app = start(|scenario| scenario.undocumented.put_enforces_length = is_enforced).await;
        let answer = create(&app, &user(), &png()).await;
        let id = id(&answer);
        let status = put(url(&answer), "image/png", PNG).await;
        if is_enforced {
            assert_eq!(status, 403);
            assert_eq!(image(&app, &id).await["status"], "PENDING");
            continue;
        }
        assert_eq!(status, 200);
        eventually("the real size", async || {
            image(&app, &id).await["status"] == "READY"
                && record(&app, &id).await["state"] == "ready"
        })
        .await;
        let record = record(&app, &id).await;
        assert_eq!(record["declared"]["size"], 48_213, "{record}");
        assert_eq!(record["real"]["size"], PNG.len());
    }
}

#[actix_web::test]
async fn a_lie_about_the_type_is_refused_or_recorded() {
    for is_enforced in [true, false] {
        let app = start(|scenario| scenario.undocumented.put_enforces_type = is_enforced).await;
        let declared = json!({ "mime_type": "image/webp", "content_length": PNG.len() });
        let answer = create(&app, &user(), &with(png(), &declared)).await;
        let id = id(&answer);
        let status = put(url(&answer), "image/png", PNG).await;
        if is_enforced {
            assert_eq!(status, 403);
            continue;
        }
        assert_eq!(status, 200);
        eventually("the real type", async || {
            image(&app, &id).await["status"] == "READY"
                && record(&app, &id).await["state"] == "ready"
        })
        .await;
        let record = record(&app, &id).await;
        assert_eq!(record["declared"]["mimeType"], "image/webp", "{record}");
        assert_eq!(record["real"]["mimeType"], "image/png");
    }
}

#[actix_web::test]
async fn a_repeated_key_yields_a_fresh_url_after_the_first_one_has_expired() {
    let app = start(|scenario| scenario.undocumented.upload_url_lifetime_seconds = 0).await;
    let declared = json!({ "content_length": PNG.len(), "idempotency_key": "a" });
    let body = with(png(), &declared);
    let first = create(&app, &user(), &body).await;
    assert_eq!(put(url(&first), "image/png", PNG).await, 403);
    app.imgwire
        .change(|scenario| scenario.undocumented.upload_url_lifetime_seconds = 900);
    let second = create(&app, &user(), &body).await;
    assert_eq!(id(&second), id(&first));
    assert_eq!(put(url(&second), "image/png", PNG).await, 200);
}

#[actix_web::test]
async fn no_scope_of_idempotency_keys_leaves_an_image_without_an_owner() {
    for scope in [
        IdempotencyScope::Environment,
        IdempotencyScope::ApiKey,
        IdempotencyScope::Nothing,
    ] {
        let app = start(|scenario| scenario.undocumented.idempotency_scope = scope).await;
        let body = with(png(), &json!({ "idempotency_key": "a" }));
        let first = id(&create(&app, &user(), &body).await);
        let second = create(&app, &user(), &body).await;
        if scope == IdempotencyScope::Nothing {
            second.assert_error(500, "imgwire_failed");
        } else {
            assert_eq!(id(&second), first);
        }
        let images = app.imgwire.images(ENVIRONMENT);
        assert_eq!(images.len(), 1, "{scope:?}");
        assert_eq!(images[0]["id"], first);
        assert_eq!(record(&app, &first).await["subject"], "user_1");
    }
}

#[actix_web::test]
async fn deleted_images_are_unknown_however_imgwire_shows_them() {
    for shows in [false, true] {
        let app = start(|scenario| {
            scenario.undocumented.read_shows_deleted = shows;
            scenario.undocumented.list_shows_deleted = shows;
        })
        .await;
        let (kept, gone) = (
            id(&create(&app, &user(), &png()).await),
            id(&create(&app, &user(), &png()).await),
        );
        // Past the gate.
        let url = format!("{}{IMAGES}{gone}", app.imgwire.url());
        let request = awc::Client::default().delete(url);
        let request = request.bearer_auth(crate::helpers::SERVER_API_KEY);
        assert_eq!(request.send().await.unwrap().status(), 200);
        let read = image(&app, &gone).await;
        assert_eq!(read["code"], "not_found");
        let list = app.request(Method::GET, &format!("{WORKSPACE}{IMAGES}"));
        let list = list.bearer(&user().sign()).send().await;
        let ids: Vec<_> = list
            .json
            .as_array()
            .unwrap()
            .iter()
            .map(|image| &image["id"])
            .collect();
        assert_eq!(ids, [&json!(kept)]);
    }
}
