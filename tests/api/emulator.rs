//! The emulator of Imgwire: keys, environments, CORS origins, billing, tokens, uploads, images and errors.

use std::{sync::Arc, time::Duration};

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::helpers::{
    Answer, Billing, CLIENT_KEY, ClientKey, CorsOrigin, ENVIRONMENT, Emulator, Endpoint, ErrorType,
    IdempotencyScope, ListOrder, Misbehaviour, Request, SERVER_API_KEY, Scenario, ServerKey,
    TestClock,
};

const OTHER_ENVIRONMENT: &str = "00000000-0000-4000-8000-000000000002";

/// A PNG of 3 by 2 pixels, up to where the pixels begin.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x03\0\0\0\x02\x08\x02\0\0\0";

const TOKEN: &str = "/api/v1/images/token";
const IMAGES: &str = "/api/v1/images/";
const ORIGINS: &str = "/api/v1/cors_origins/";

/// An emulator whose clock the test moves.
struct Imgwire {
    emulator: Emulator,
    clock: Arc<TestClock>,
}

impl Imgwire {
    fn start() -> Self {
        let clock = Arc::<TestClock>::default();
        let emulator = Emulator::start_at(0, clock.clone()).unwrap();
        Self { emulator, clock }
    }

    fn with(change: impl FnOnce(&mut Scenario)) -> Self {
        let imgwire = Self::start();
        imgwire.emulator.change(change);
        imgwire
    }

    fn request(&self, method: Method, path: &str, key: &str) -> Request {
        let url = match path.strip_prefix("http") {
            Some(_) => path.to_owned(),
            None => format!("{}{path}", self.emulator.url()),
        };
        let request = Request(awc::Client::default().request(method, url));
        if key.is_empty() {
            return request;
        }
        request.bearer(key)
    }

    async fn token(&self) -> String {
        let answer = self
            .request(Method::POST, TOKEN, SERVER_API_KEY)
            .send()
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json["token"].as_str().unwrap().to_owned()
    }

    fn upload(&self, key: &str, token: Option<&str>) -> Request {
        let query = token.map_or_else(String::new, |token| format!("?upload_token={token}"));
        let path = format!("/api/v1/images/standard_upload{query}");
        self.request(Method::POST, &path, key)
    }

    /// Creates an upload with the Server API Key; returns the answer.
    async fn created(&self, body: Value) -> Value {
        let answer = self.upload(SERVER_API_KEY, None).json(&body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json
    }

    async fn put(&self, upload: &Value, mime_type: &str, bytes: &'static [u8]) -> Answer {
        let url = upload["upload_url"].as_str().unwrap();
        let request = self.request(Method::PUT, url, "");
        request
            .header("content-type", mime_type)
            .send_body(bytes)
            .await
    }

    async fn image(&self, upload: &Value) -> Answer {
        let id = upload["image"]["id"].as_str().unwrap();
        self.request(Method::GET, &format!("{IMAGES}{id}"), CLIENT_KEY)
            .send()
            .await
    }

    async fn delete(&self, upload: &Value) -> Answer {
        let id = upload["image"]["id"].as_str().unwrap();
        self.request(Method::DELETE, &format!("{IMAGES}{id}"), SERVER_API_KEY)
            .send()
            .await
    }

    async fn list(&self, query: &str) -> Answer {
        self.request(Method::GET, &format!("{IMAGES}{query}"), SERVER_API_KEY)
            .send()
            .await
    }
}

fn file() -> Value {
    json!({ "file_name": "a.png" })
}

#[track_caller]
fn refused(answer: &Answer, status: u16, error_type: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.json["error_type"], error_type, "{answer:?}");
    assert!(answer.json["detail"].is_string(), "{answer:?}");
    assert_eq!(answer.json.as_object().unwrap().len(), 2, "{answer:?}");
}

#[track_caller]
fn invalid(answer: &Answer, location: &Value) {
    assert_eq!(answer.status, 422, "{answer:?}");
    let problems = answer.json["detail"].as_array().unwrap();
    for problem in problems {
        assert!(problem["msg"].is_string() && problem["type"].is_string());
    }
    let is_named = problems.iter().any(|problem| problem["loc"] == *location);
    assert!(is_named, "{answer:?}");
}

#[actix_web::test]
async fn each_endpoint_requires_a_valid_key_of_the_right_type() {
    let imgwire = Imgwire::start();
    let upload = imgwire.created(file()).await;
    let id = upload["image"]["id"].as_str().unwrap();
    let image = format!("{IMAGES}{id}");
    for (method, path, is_for_clients) in [
        (Method::POST, TOKEN, false),
        (Method::POST, "/api/v1/images/bulk_delete", false),
        (Method::GET, IMAGES, false),
        (Method::GET, ORIGINS, false),
        (Method::DELETE, &image, false),
        (Method::GET, &image, true),
        (Method::POST, "/api/v1/images/standard_upload", true),
    ] {
        for key in ["", "sk_wrong", "ck_wrong"] {
            let answer = imgwire.request(method.clone(), path, key).send().await;
            refused(&answer, 401, "InvalidTokenError");
        }
        let answer = imgwire
            .request(method.clone(), path, CLIENT_KEY)
            .send()
            .await;
        if is_for_clients {
            assert!(![401, 403].contains(&answer.status.as_u16()), "{answer:?}");
        } else {
            refused(&answer, 403, "OperationNotAllowedError");
        }
    }
    imgwire.emulator.change(|scenario| {
        scenario.server_keys[0].revoked = true;
        scenario.client_keys[0].revoked = true;
    });
    for key in [SERVER_API_KEY, CLIENT_KEY] {
        let answer = imgwire.request(Method::GET, &image, key).send().await;
        refused(&answer, 401, "InvalidTokenError");
    }
}

#[actix_web::test]
async fn a_key_without_an_environment_must_name_one() {
    let imgwire = Imgwire::with(|scenario| {
        scenario.environments.push(OTHER_ENVIRONMENT.to_owned());
        scenario.server_keys.push(ServerKey {
            environment: None,
            ..ServerKey::new("sk_all")
        });
    });
    let ask = |key, environment: &str| {
        let request = imgwire.request(Method::POST, TOKEN, key);
        request.header("x-environment-id", environment).send()
    };
    let answer = imgwire.request(Method::POST, TOKEN, "sk_all").send().await;
    invalid(&answer, &json!(["header", "x-environment-id"]));
    let answer = ask("sk_all", "no uuid").await;
    invalid(&answer, &json!(["header", "x-environment-id"]));
    let answer = ask("sk_all", OTHER_ENVIRONMENT).await;
    assert_eq!(answer.json["environment_id"], OTHER_ENVIRONMENT);
    let unknown = "00000000-0000-4000-8000-000000000009";
    let answer = ask("sk_all", unknown).await;
    refused(&answer, 403, "ResourceNotAuthorizedError");
    // The default key is scoped.
    assert_eq!(ask(SERVER_API_KEY, ENVIRONMENT).await.status, 200);
    let answer = ask(SERVER_API_KEY, OTHER_ENVIRONMENT).await;
    refused(&answer, 403, "ResourceNotAuthorizedError");
}

#[actix_web::test]
async fn images_and_tokens_of_another_environment_are_out_of_reach() {
    let imgwire = Imgwire::with(|scenario| {
        scenario.server_keys.push(ServerKey {
            environment: Some(OTHER_ENVIRONMENT.to_owned()),
            ..ServerKey::new("sk_other")
        });
        scenario.client_keys.push(ClientKey {
            environment: OTHER_ENVIRONMENT.to_owned(),
            ..ClientKey::new("ck_other")
        });
    });
    let upload = imgwire.created(file()).await;
    let id = upload["image"]["id"].as_str().unwrap();
    let path = format!("{IMAGES}{id}");
    for method in [Method::GET, Method::DELETE] {
        let answer = imgwire.request(method, &path, "sk_other").send().await;
        refused(&answer, 403, "ResourceNotAuthorizedError");
    }
    let answer = imgwire
        .request(Method::GET, IMAGES, "sk_other")
        .send()
        .await;
    assert_eq!(answer.json, json!([]));
    let token = imgwire.token().await;
    let answer = imgwire.upload("ck_other", Some(&token)).json(&file()).await;
    refused(&answer, 401, "InvalidTokenError");
}

#[actix_web::test]
async fn a_client_key_uploads_with_a_fresh_token_unless_it_allows_unsigned_uploads() {
    let imgwire = Imgwire::start();
    let answer = imgwire.upload(CLIENT_KEY, None).json(&file()).await;
    refused(&answer, 403, "OperationNotAllowedError");
    imgwire.emulator.change(|scenario| {
        scenario.undocumented.missing_token_error = ErrorType::InvalidToken;
    });
    let answer = imgwire.upload(CLIENT_KEY, None).json(&file()).await;
    refused(&answer, 401, "InvalidTokenError");

    let token = imgwire.token().await;
    let answer = imgwire.upload(CLIENT_KEY, Some(&token)).json(&file()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.json["image"]["upload_token_id"],
        "00000000-0000-4000-8001-000000000001"
    );
    // Once only.
    let answer = imgwire.upload(CLIENT_KEY, Some(&token)).json(&file()).await;
    refused(&answer, 401, "InvalidTokenError");
    let answer = imgwire.upload(CLIENT_KEY, Some("ut_x")).json(&file()).await;
    refused(&answer, 401, "InvalidTokenError");
    // Not after its expiry.
    let token = imgwire.token().await;
    imgwire.clock.advance(Duration::from_secs(15 * 60));
    let answer = imgwire.upload(CLIENT_KEY, Some(&token)).json(&file()).await;
    refused(&answer, 401, "InvalidTokenError");

    imgwire
        .emulator
        .change(|scenario| scenario.client_keys[0].allow_unsigned_upload = true);
    let answer = imgwire.upload(CLIENT_KEY, None).json(&file()).await;
    assert_eq!(answer.json["image"]["upload_token_id"], Value::Null);
    assert_eq!(imgwire.emulator.images(ENVIRONMENT).len(), 2);
}

#[actix_web::test]
async fn the_limits_of_a_client_key_apply_to_what_an_upload_declares() {
    let imgwire = Imgwire::with(|scenario| {
        let key = &mut scenario.client_keys[0];
        key.allow_unsigned_upload = true;
        key.maximum_upload_bytes = Some(5120);
        key.allowed_mime_types = Some(vec!["image/png".to_owned()]);
        key.maximum_pending_uploads = Some(3);
    });
    let upload = async |body: Value| imgwire.upload(CLIENT_KEY, None).json(&body).await;
    let declared = |length: u64, mime_type: &str| json!({ "file_name": "a", "content_length": length, "mime_type": mime_type });
    for body in [declared(5121, "image/png"), declared(1, "image/gif")] {
        refused(&upload(body).await, 403, "OperationNotAllowedError");
    }
    assert_eq!(upload(declared(5120, "image/png")).await.status, 200);
    // What is not declared is not compared, unless the emulator is told so.
    assert_eq!(upload(file()).await.status, 200);
    imgwire
        .emulator
        .change(|scenario| scenario.undocumented.limits_require_declaration = true);
    refused(&upload(file()).await, 403, "OperationNotAllowedError");
    // Nothing of this holds for a Server API Key.
    imgwire.created(declared(6000, "image/gif")).await;

    let third = upload(declared(1, "image/png")).await;
    assert_eq!(third.status, 200);
    refused(
        &upload(declared(1, "image/png")).await,
        403,
        "OperationNotAllowedError",
    );
    assert_eq!(imgwire.put(&third.json, "image/png", PNG).await.status, 200);
    assert_eq!(upload(declared(1, "image/png")).await.status, 200);
}

#[actix_web::test]
async fn cors_origins_restrict_the_pages_that_upload_with_a_client_key() {
    let imgwire = Imgwire::with(|scenario| scenario.client_keys[0].allow_unsigned_upload = true);
    let upload = async |key: &str, origin: &str| {
        let request = imgwire.upload(key, None).header("origin", origin);
        request.json(&file()).await
    };
    // Without origins, every page may.
    assert_eq!(upload(CLIENT_KEY, "https://evil.example").await.status, 200);
    imgwire.emulator.change(|scenario| {
        let patterns = ["app.example.com", "*.example.org", "localhost:3000"];
        scenario.cors_origins = patterns.map(CorsOrigin::new).to_vec();
        // Those of other environments do not matter.
        scenario.cors_origins.push(CorsOrigin {
            environment: OTHER_ENVIRONMENT.to_owned(),
            pattern: "evil.example".to_owned(),
        });
    });
    for (origin, is_allowed) in [
        ("https://app.example.com", true),
        ("https://www.example.org", true),
        ("http://localhost:3000", true),
        ("http://localhost:3001", false),
        ("https://example.org", false),
        ("https://evil.example", false),
        ("null", false),
    ] {
        let answer = upload(CLIENT_KEY, origin).await;
        if is_allowed {
            assert_eq!(answer.status, 200, "{origin}");
        } else {
            refused(&answer, 403, "OperationNotAllowedError");
        }
        // Pages can read the answer, whatever it is.
        assert_eq!(answer.header("access-control-allow-origin"), origin);
        assert_eq!(upload(SERVER_API_KEY, origin).await.status, 200);
    }
    let without = async || imgwire.upload(CLIENT_KEY, None).json(&file()).await;
    assert_eq!(without().await.status, 200);
    imgwire
        .emulator
        .change(|scenario| scenario.undocumented.origin_required = true);
    refused(&without().await, 403, "OperationNotAllowedError");

    let list = imgwire
        .request(Method::GET, ORIGINS, SERVER_API_KEY)
        .send()
        .await;
    assert_eq!(list.header("x-total-count"), "3");
    assert_eq!(list.json[1]["pattern"], "*.example.org");
    assert_eq!(list.json[1]["environment_id"], ENVIRONMENT);
}

#[actix_web::test]
async fn the_state_of_the_plan_refuses_tokens_and_uploads() {
    let imgwire = Imgwire::start();
    let upload = imgwire.created(file()).await;
    let token = imgwire.token().await;
    let ask = async || {
        imgwire
            .request(Method::POST, TOKEN, SERVER_API_KEY)
            .send()
            .await
    };
    let start = async || imgwire.upload(CLIENT_KEY, Some(&token)).json(&file()).await;
    for billing in [
        Billing::Unpaid,
        Billing::StorageUsedUp,
        Billing::UploadsUsedUp,
    ] {
        imgwire
            .emulator
            .change(|scenario| scenario.billing = billing);
        refused(&ask().await, 402, "PaymentRequiredError");
        refused(&start().await, 402, "PaymentRequiredError");
        // What is there can be read.
        assert_eq!(imgwire.image(&upload).await.status, 200);
    }
    imgwire.emulator.change(|scenario| {
        scenario.undocumented.tokens_check_capacity = false;
        scenario.undocumented.payment_required_status = 403;
    });
    assert_eq!(ask().await.status, 200);
    refused(&start().await, 403, "PaymentRequiredError");
    imgwire
        .emulator
        .change(|scenario| scenario.billing = Billing::Unpaid);
    refused(&ask().await, 403, "PaymentRequiredError");
    // A refused upload consumes no token.
    imgwire
        .emulator
        .change(|scenario| scenario.billing = Billing::Active);
    assert_eq!(start().await.status, 200);
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
async fn the_date_header_can_be_skewed() {
    let imgwire = Imgwire::start();
    imgwire.clock.set("2030-01-02T03:04:05Z".parse().unwrap());
    let date = async || imgwire.list("").await.header("date").to_owned();
    assert!(date().await.starts_with("Wed, 02 Jan 2030 03:04:"));
    imgwire
        .emulator
        .change(|scenario| scenario.date_skew_seconds = -600);
    assert!(date().await.starts_with("Wed, 02 Jan 2030 02:54:"));
}

#[actix_web::test]
async fn each_endpoint_can_misbehave_and_counts_its_requests() {
    let imgwire = Imgwire::start();
    let page = "<html>maintenance</html>";
    let body = Misbehaviour::Body(page.to_owned());
    imgwire.emulator.misbehave_at(Endpoint::Images, Some(body));
    assert_eq!(imgwire.list("").await.text, page);
    let refusal = Misbehaviour::Refuse(ErrorType::PaymentRequired);
    imgwire
        .emulator
        .misbehave_at(Endpoint::Images, Some(refusal));
    refused(&imgwire.list("").await, 402, "PaymentRequiredError");
    imgwire.emulator.misbehave_at(Endpoint::Images, None);
    assert_eq!(imgwire.list("").await.status, 200);
    let trickle = Misbehaviour::Trickle(Duration::from_millis(1));
    imgwire
        .emulator
        .misbehave_at(Endpoint::Upload, Some(trickle));
    imgwire.created(file()).await;
    assert_eq!(imgwire.emulator.asked_at(Endpoint::Images), 3);
    assert_eq!(imgwire.emulator.asked_at(Endpoint::Upload), 1);
    assert_eq!(imgwire.emulator.asked(), 0);
}

#[actix_web::test]
async fn the_scenario_can_be_switched_over_http_but_not_by_pages() {
    let imgwire = Imgwire::start();
    let control = |method| imgwire.request(method, "/emulator", "");
    let before = control(Method::GET).send().await.json;
    assert_eq!(before["billing"], "active");
    let patch = json!({ "billing": "unpaid", "undocumented": { "payment_required_status": 403 } });
    let after = control(Method::PATCH).json(&patch).await;
    assert_eq!(after.json["billing"], "unpaid");
    assert_eq!(after.json["undocumented"]["put_enforces_type"], false);
    let answer = imgwire
        .request(Method::POST, TOKEN, SERVER_API_KEY)
        .send()
        .await;
    refused(&answer, 403, "PaymentRequiredError");
    // What is wrong changes nothing.
    for patch in [
        json!({ "biling": "active" }),
        json!({ "billing": "free" }),
        json!(1),
    ] {
        assert_eq!(
            control(Method::PATCH).json(&patch).await.status,
            400,
            "{patch}"
        );
    }
    let back = json!({ "billing": "active" });
    let page = control(Method::PATCH).header("origin", "http://localhost:3000");
    assert_eq!(page.json(&back).await.status, 403);
    let rebound = control(Method::PATCH).instead("host", "evil.example");
    assert_eq!(rebound.json(&back).await.status, 403);
    assert_eq!(control(Method::GET).send().await.json, after.json);
}

#[actix_web::test]
async fn the_emulator_forgets_the_oldest_images() {
    let imgwire = Imgwire::start();
    let first = imgwire.created(file()).await;
    for _ in 0..2_000 {
        imgwire.created(file()).await;
    }
    refused(&imgwire.image(&first).await, 404, "ResourceNotFoundError");
    assert_eq!(imgwire.list("").await.header("x-total-count"), "2000");
}
