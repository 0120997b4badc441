//! The emulator of Imgwire: keys, environments, tokens and the limits of Client Keys.

use std::{sync::Arc, time::Duration};

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::helpers::{
    Answer, CLIENT_KEY, ClientKey, ENVIRONMENT, Emulator, ErrorType, Request, SERVER_API_KEY,
    Scenario, ServerKey, TestClock,
};

pub(crate) const OTHER_ENVIRONMENT: &str = "00000000-0000-4000-8000-000000000002";

/// A PNG of 3 by 2 pixels, up to where the pixels begin.
pub(crate) const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x03\0\0\0\x02\x08\x02\0\0\0";

pub(crate) const TOKEN: &str = "/api/v1/images/token";
pub(crate) const IMAGES: &str = "/api/v1/images/";
pub(crate) const ORIGINS: &str = "/api/v1/cors_origins/";

/// An emulator whose clock the test moves.
pub(crate) struct Imgwire {
    pub(crate) emulator: Emulator,
    pub(crate) clock: Arc<TestClock>,
}

impl Imgwire {
    pub(crate) fn start() -> Self {
        let clock = Arc::<TestClock>::default();
        let emulator = Emulator::start_at(0, clock.clone()).unwrap();
        Self { emulator, clock }
    }

    pub(crate) fn with(change: impl FnOnce(&mut Scenario)) -> Self {
        let imgwire = Self::start();
        imgwire.emulator.change(change);
        imgwire
    }

    pub(crate) fn request(&self, method: Method, path: &str, key: &str) -> Request {
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

    pub(crate) async fn token(&self) -> String {
        let answer = self
            .request(Method::POST, TOKEN, SERVER_API_KEY)
            .send()
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json["token"].as_str().unwrap().to_owned()
    }

    pub(crate) fn upload(&self, key: &str, token: Option<&str>) -> Request {
        let query = token.map_or_else(String::new, |token| format!("?upload_token={token}"));
        let path = format!("/api/v1/images/standard_upload{query}");
        self.request(Method::POST, &path, key)
    }

    /// Creates an upload with the Server API Key; returns the answer.
    pub(crate) async fn created(&self, body: Value) -> Value {
        let answer = self.upload(SERVER_API_KEY, None).json(&body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json
    }

    pub(crate) async fn put(
        &self,
        upload: &Value,
        mime_type: &str,
        bytes: &'static [u8],
    ) -> Answer {
        let url = upload["upload_url"].as_str().unwrap();
        let request = self.request(Method::PUT, url, "");
        request
            .header("content-type", mime_type)
            .send_body(bytes)
            .await
    }

    pub(crate) async fn image(&self, upload: &Value) -> Answer {
        let id = upload["image"]["id"].as_str().unwrap();
        self.request(Method::GET, &format!("{IMAGES}{id}"), CLIENT_KEY)
            .send()
            .await
    }

    pub(crate) async fn delete(&self, upload: &Value) -> Answer {
        let id = upload["image"]["id"].as_str().unwrap();
        self.request(Method::DELETE, &format!("{IMAGES}{id}"), SERVER_API_KEY)
            .send()
            .await
    }

    pub(crate) async fn list(&self, query: &str) -> Answer {
        self.request(Method::GET, &format!("{IMAGES}{query}"), SERVER_API_KEY)
            .send()
            .await
    }
}

pub(crate) fn file() -> Value {
    json!({ "file_name": "a.png" })
}

#[track_caller]
pub(crate) fn refused(answer: &Answer, status: u16, error_type: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.json["error_type"], error_type, "{answer:?}");
    assert!(answer.json["detail"].is_string(), "{answer:?}");
    assert_eq!(answer.json.as_object().unwrap().len(), 2, "{answer:?}");
}

#[track_caller]
pub(crate) fn invalid(answer: &Answer, location: &Value) {
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
    let answer = ask(SERVER_API_KEY, OTHER_ENVIRONMENT).await;
    assert_eq!(answer.json["environment_id"], ENVIRONMENT);
    let change = |scenario: &mut Scenario| {
        scenario.undocumented.scoped_keys_check_environment = true;
    };
    imgwire.emulator.change(change);
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
