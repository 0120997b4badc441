//! The emulator of Imgwire: uploads and images.

use std::time::Duration;

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::{
    emulator::{IMAGES, Imgwire, PNG, file, invalid, refused},
    helpers::{
        Answer, CLIENT_KEY, ENVIRONMENT, IdempotencyScope, ListOrder, SERVER_API_KEY, Scenario,
    },
};

#[actix_web::test]
async fn an_image_is_processed_for_a_while_and_then_has_its_real_properties() {
    let imgwire = Imgwire::start();
    let body = json!({
        "file_name": "a.gif", "mime_type": "image/gif", "content_length": 7, "purpose": "avatar",
        "custom_metadata": { "alt": "A cat", "width": 3 },
    });
    let upload = imgwire.created(body).await;
    let image = &upload["image"];
    assert_eq!(
        (&image["status"], &image["can_upload"]),
        (&json!("PENDING"), &json!(true))
    );
    assert_eq!(
        (&image["size_bytes"], &image["mime_type"]),
        (&json!(7), &json!("image/gif"))
    );
    assert_eq!(
        image["custom_metadata"],
        json!({ "alt": "A cat", "width": 3 })
    );
    assert_eq!(imgwire.put(&upload, "image/png", PNG).await.status, 200);
    let image = imgwire.image(&upload).await.json;
    assert_eq!(
        (&image["status"], &image["can_upload"]),
        (&json!("PROCESSING"), &json!(false))
    );
    assert_eq!(image["size_bytes"], 7);
    imgwire.clock.advance(Duration::from_millis(500));
    let image = imgwire.image(&upload).await.json;
    assert_eq!(
        (&image["status"], &image["mime_type"]),
        (&json!("READY"), &json!("image/png"))
    );
    assert_eq!(
        (&image["size_bytes"], &image["extension"]),
        (&json!(PNG.len()), &json!("png"))
    );
    assert_eq!((&image["width"], &image["height"]), (&json!(3), &json!(2)));
    let url = image["cdn_url"].as_str().unwrap();
    let mut delivered = awc::Client::default().get(url).send().await.unwrap();
    assert_eq!(delivered.body().await.unwrap(), PNG);

    imgwire.emulator.change(|scenario| {
        scenario.quarantine = true;
        scenario.processing_milliseconds = 0;
    });
    let upload = imgwire.created(file()).await;
    assert_eq!(imgwire.put(&upload, "image/png", PNG).await.status, 200);
    let image = imgwire.image(&upload).await.json;
    assert_eq!(image["status"], "QUARANTINE");
    let url = image["cdn_url"].as_str().unwrap();
    assert_eq!(
        awc::Client::default()
            .get(url)
            .send()
            .await
            .unwrap()
            .status(),
        404
    );
}

#[actix_web::test]
async fn only_what_begins_as_an_image_becomes_ready() {
    let imgwire = Imgwire::start();
    let cases: [(&[u8], &str); 9] = [
        (b"plain text", "QUARANTINE"),
        (b"", "QUARANTINE"),
        (b"BM is a make of cars", "QUARANTINE"),
        (b"what is WEBP?", "QUARANTINE"),
        (b"\x89PNG", "QUARANTINE"),
        (b"GIF8 is no version", "QUARANTINE"),
        (b"RIFF\x1a\0\0\0WEBPVP8L", "READY"),
        (b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0", "READY"),
        (b"MM\0*\0\0\0\x08", "READY"),
    ];
    for (bytes, status) in cases {
        let upload = imgwire.created(file()).await;
        let answer = imgwire.put(&upload, "image/png", bytes).await;
        assert_eq!(answer.status, 200);
        imgwire.clock.advance(Duration::from_secs(1));
        let image = imgwire.image(&upload).await.json;
        assert_eq!(image["status"], status, "{}", bytes.escape_ascii());
    }
}

#[actix_web::test]
async fn the_put_enforces_length_type_and_expiry_as_switched() {
    let imgwire = Imgwire::start();
    let body = json!({ "file_name": "a.png", "mime_type": "image/png", "content_length": 1 });
    let upload = imgwire.created(body.clone()).await;
    assert_eq!(imgwire.put(&upload, "image/gif", PNG).await.status, 200);
    // Only once.
    assert_eq!(imgwire.put(&upload, "image/png", PNG).await.status, 404);

    let upload = imgwire.created(body.clone()).await;
    imgwire
        .emulator
        .change(|scenario| scenario.undocumented.put_enforces_length = true);
    assert_eq!(imgwire.put(&upload, "image/png", PNG).await.status, 403);
    imgwire.emulator.change(|scenario| {
        scenario.undocumented.put_enforces_length = false;
        scenario.undocumented.put_enforces_type = true;
    });
    assert_eq!(imgwire.put(&upload, "image/gif", PNG).await.status, 403);
    imgwire.clock.advance(Duration::from_secs(15 * 60));
    assert_eq!(imgwire.put(&upload, "image/png", PNG).await.status, 403);
    imgwire
        .emulator
        .change(|scenario| scenario.undocumented.upload_url_lifetime_seconds = 3600);
    let upload = imgwire.created(body).await;
    imgwire.clock.advance(Duration::from_secs(3590));
    assert_eq!(imgwire.put(&upload, "image/png", PNG).await.status, 200);
}

#[actix_web::test]
async fn pages_may_put_to_the_images_of_every_key_or_of_client_keys_as_switched() {
    let imgwire = Imgwire::start();
    let token = imgwire.token().await;
    let of_client = imgwire
        .upload(CLIENT_KEY, Some(&token))
        .json(&file())
        .await
        .json;
    let of_server = imgwire.created(file()).await;
    let preflight = async |upload: &Value| {
        let url = upload["upload_url"].as_str().unwrap();
        let request = imgwire
            .request(Method::OPTIONS, url, "")
            .header("origin", "http://localhost:3000")
            .header("access-control-request-method", "PUT")
            .header("access-control-request-headers", "content-type");
        let answer = request.send().await;
        answer.header("access-control-allow-origin").to_owned()
    };
    assert_eq!(preflight(&of_server).await, "http://localhost:3000");
    imgwire
        .emulator
        .change(|scenario| scenario.undocumented.put_cors_requires_client_key = true);
    assert_eq!(preflight(&of_server).await, "");
    assert_eq!(preflight(&of_client).await, "http://localhost:3000");
}

#[actix_web::test]
async fn the_list_has_pages_and_their_headers() {
    let imgwire = Imgwire::start();
    for number in 0..5 {
        imgwire
            .created(json!({ "file_name": format!("{number}") }))
            .await;
    }
    let names = |answer: &Answer| {
        let images = answer.json.as_array().unwrap().iter();
        let names = images.map(|image| image["original_filename"].as_str().unwrap().to_owned());
        names.collect::<String>()
    };
    let headers = |answer: &Answer| {
        [
            "x-total-count",
            "x-page",
            "x-limit",
            "x-prev-page",
            "x-next-page",
        ]
        .map(|name| answer.header(name).to_owned())
    };
    for (query, expected, expected_headers) in [
        ("", "43210", ["5", "1", "20", "", ""]),
        ("?limit=2", "43", ["5", "1", "2", "", "2"]),
        ("?limit=2&page=2", "21", ["5", "2", "2", "1", "3"]),
        ("?limit=2&page=3", "0", ["5", "3", "2", "2", ""]),
        ("?limit=100&page=9", "", ["5", "9", "100", "8", ""]),
    ] {
        let answer = imgwire.list(query).await;
        assert_eq!(names(&answer), expected, "{query}");
        assert_eq!(headers(&answer), expected_headers, "{query}");
    }
    for (query, name) in [
        ("?limit=101", "limit"),
        ("?limit=0", "limit"),
        ("?page=0", "page"),
        ("?page=x", "page"),
    ] {
        invalid(&imgwire.list(query).await, &json!(["query", name]));
    }
    imgwire
        .emulator
        .change(|scenario| scenario.undocumented.list_order = ListOrder::OldestFirst);
    assert_eq!(names(&imgwire.list("?limit=2").await), "01");
}

#[actix_web::test]
async fn deleted_images_are_gone_or_marked_as_switched() {
    let imgwire = Imgwire::start();
    let upload = imgwire.created(file()).await;
    let id = upload["image"]["id"].as_str().unwrap();
    assert_eq!(imgwire.delete(&upload).await.status, 200);
    refused(&imgwire.delete(&upload).await, 404, "ResourceNotFoundError");
    refused(&imgwire.image(&upload).await, 404, "ResourceNotFoundError");
    assert_eq!(imgwire.list("").await.json, json!([]));
    assert_eq!(imgwire.put(&upload, "image/png", PNG).await.status, 404);
    imgwire.emulator.change(|scenario| {
        scenario.undocumented.list_shows_deleted = true;
        scenario.undocumented.read_shows_deleted = true;
    });
    let marked = imgwire.image(&upload).await.json;
    assert!(marked["deleted_at"].is_string(), "{marked}");
    assert_eq!(imgwire.list("").await.json, json!([marked]));

    let other = imgwire.created(file()).await;
    let other = other["image"]["id"].as_str().unwrap();
    let bulk = async |ids: Value| {
        let path = "/api/v1/images/bulk_delete";
        let request = imgwire.request(Method::POST, path, SERVER_API_KEY);
        request.json(&json!({ "image_ids": ids })).await
    };
    let answer = bulk(json!([id, other])).await;
    assert_eq!(answer.json, json!({ id: "Image not found", other: null }));
    assert!(imgwire.emulator.images(ENVIRONMENT).is_empty());
    invalid(&bulk(json!([])).await, &json!(["body", "image_ids"]));
    invalid(&bulk(json!(["x"])).await, &json!(["body", "image_ids"]));
}

#[actix_web::test]
async fn an_idempotency_key_returns_the_same_image_within_its_scope() {
    let imgwire = Imgwire::with(|scenario| scenario.client_keys[0].allow_unsigned_upload = true);
    let body = json!({ "file_name": "a.png", "idempotency_key": "once" });
    let id = async |key: &str| {
        let upload = imgwire.upload(key, None).json(&body).await.json;
        let url = upload["upload_url"].as_str().unwrap().to_owned();
        (upload["image"]["id"].as_str().unwrap().to_owned(), url)
    };
    let (first, first_url) = id(SERVER_API_KEY).await;
    let (second, second_url) = id(SERVER_API_KEY).await;
    assert_eq!(first, second);
    assert_ne!(first_url, second_url);
    assert_eq!(id(CLIENT_KEY).await.0, first);
    let scope = |scope| {
        let change = |scenario: &mut Scenario| scenario.undocumented.idempotency_scope = scope;
        imgwire.emulator.change(change);
    };
    scope(IdempotencyScope::ApiKey);
    assert_eq!(id(SERVER_API_KEY).await.0, first);
    assert_ne!(id(CLIENT_KEY).await.0, first);
    scope(IdempotencyScope::Nothing);
    assert_ne!(id(SERVER_API_KEY).await.0, first);
}

#[actix_web::test]
async fn the_emulator_forgets_the_oldest_images() {
    let imgwire = Imgwire::start();
    let mut large = file();
    large["custom_metadata"] = json!({ "text": "x".repeat(15_000) });
    let kept = (16 << 20) / large.to_string().len();
    let first = imgwire.created(large.clone()).await;
    for _ in 0..kept {
        imgwire.created(large.clone()).await;
    }
    refused(&imgwire.image(&first).await, 404, "ResourceNotFoundError");
    let total = imgwire.list("").await.header("x-total-count").to_owned();
    assert_eq!(total, kept.to_string());
}

#[actix_web::test]
async fn invalid_uploads_are_reported_field_by_field() {
    let imgwire = Imgwire::start();
    for (body, field) in [
        (json!({}), "file_name"),
        (json!({ "file_name": "" }), "file_name"),
        (json!({ "file_name": 1 }), "file_name"),
        (
            json!({ "file_name": "a", "mime_type": "image/svg+xml" }),
            "mime_type",
        ),
        (
            json!({ "file_name": "a", "content_length": -1 }),
            "content_length",
        ),
        (
            json!({ "file_name": "a", "purpose": "x".repeat(256) }),
            "purpose",
        ),
        (
            json!({ "file_name": "a", "custom_metadata": { "a": [] } }),
            "custom_metadata",
        ),
    ] {
        let answer = imgwire.upload(SERVER_API_KEY, None).json(&body).await;
        invalid(&answer, &json!(["body", field]));
    }
    let answer = imgwire.upload(SERVER_API_KEY, None).send_body("{").await;
    invalid(&answer, &json!(["body"]));
    let answer = imgwire
        .request(Method::GET, "/api/v1/images/x", CLIENT_KEY)
        .send()
        .await;
    invalid(&answer, &json!(["path", "image_id"]));
    let unknown = format!("{IMAGES}00000000-0000-4000-8002-000000000009");
    let answer = imgwire
        .request(Method::GET, &unknown, CLIENT_KEY)
        .send()
        .await;
    refused(&answer, 404, "ResourceNotFoundError");
    let answer = imgwire
        .request(Method::GET, "/api/v2/", SERVER_API_KEY)
        .send()
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.text.as_str()),
        (404, r#"{"detail":"Not Found"}"#)
    );
}
