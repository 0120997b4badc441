//! Tries an upload without a token: with the public Client Key, as anyone can.

use actix_web::http::{Method, StatusCode, header::HeaderValue};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Audit, CLIENT_KEY, Found, IMAGES, Key, is_plain, response::Response};
use crate::{config::imgwire::ClientKey, imgwire::error_body::ErrorKind, telemetry::Point};

/// Every Client Key accepts this size.
const BYTES: u32 = 5 * 1024;

const BYPASS: &str = "anyone with the Client Key can upload without this gate";

const REQUIRE_TOKENS: &str =
    "turn off unsigned uploads (allow_unsigned_upload) of this Client Key in Imgwire's dashboard";

/// What a Client Key is good for, as reading an image with it shows.
enum KeyState {
    /// It reads an image of the environment of the Server API Key.
    SameEnvironment,
    /// Imgwire accepts it. The environment has no image that would show more.
    Accepted,
    /// It cannot read an image of the environment.
    OtherEnvironment(String),
    Refused(String),
    Unclear,
}

impl Audit<'_> {
    pub(super) async fn client_key(&self, found: &Found) -> Point {
        let Some(key) = self.client_key else {
            return Point::not_tried(
                CLIENT_KEY,
                "whether uploads need a token is unknown without a Client Key",
                "set `client_key` in [imgwire] to the Client Key (ck_...) of your pages, and run `imgwire-gate doctor --probe`",
            );
        };
        if !self.probe {
            return Point::not_tried(
                CLIENT_KEY,
                "an upload without a token was not tried",
                "run `imgwire-gate doctor --probe`, which declares an upload that Imgwire must refuse",
            );
        }
        // The mark lets an operator find what could not be deleted.
        let name = format!("imgwire-gate-doctor-{}.png", Uuid::new_v4());
        let upload =
            json!({ "file_name": name, "mime_type": "image/png", "content_length": BYTES });
        let origin = found.host.as_deref().and_then(page_of);
        let path = format!("{IMAGES}standard_upload");
        let body = Some((&upload, origin));
        let tried = self.call(Method::POST, &path, Key::Client(key), body).await;
        match tried {
            Err(error) => unknown(format!("no answer to an upload without a token: {error}")),
            Ok(response) if response.status.is_success() => self.accepted(&response, &name).await,
            Ok(response) => self.refused(&response, key, found).await,
        }
    }

    /// Deletes an upload that was accepted.
    async fn accepted(&self, response: &Response, name: &str) -> Point {
        let body = response.json().unwrap_or_default();
        let id = body["image"]["id"].as_str().filter(|id| is_plain(id));
        let Some(id) = id else {
            let left = format!(
                "the response has no image id; look for the file name {name} in Imgwire's dashboard"
            );
            return Point::failed(CLIENT_KEY, format!("{BYPASS}; {left}"), REQUIRE_TOKENS);
        };
        let path = format!("{IMAGES}{id}");
        let deleted = self.call(Method::DELETE, &path, Key::Server, None).await;
        let problem = match deleted {
            Ok(response) if response.status.is_success() => None,
            Ok(response) if response.status == StatusCode::NOT_FOUND => None,
            Ok(response) => Some(response.describe()),
            Err(error) => Some(error.to_string()),
        };
        match problem {
            None => Point::failed(
                CLIENT_KEY,
                format!("{BYPASS} (the upload that was tried, image {id}, is deleted)"),
                REQUIRE_TOKENS,
            ),
            Some(problem) => Point::failed(
                CLIENT_KEY,
                format!(
                    "{BYPASS} (the upload that was tried, image {id}, could not be deleted: {problem})"
                ),
                format!("{REQUIRE_TOKENS}, and delete the image {id} there"),
            ),
        }
    }

    /// Finds out whether the upload was refused for want of a token, or because the key does not work.
    async fn refused(&self, response: &Response, key: &ClientKey, found: &Found) -> Point {
        let reason = response.describe();
        let other = || {
            unknown(format!(
                "an upload without a token was refused, but perhaps for another reason ({reason})"
            ))
        };
        let Some(refusal) = response.refusal() else {
            return other();
        };
        let names_it = response.names_the_missing_token();
        let may_name_it = names_it || refusal == ErrorKind::InvalidToken;
        if !may_name_it || refusal == ErrorKind::PaymentRequired {
            return other();
        }
        match self.state_of(key, found).await {
            KeyState::SameEnvironment | KeyState::Accepted => Point::ok(
                CLIENT_KEY,
                format!("an upload without a token is refused ({reason})"),
            ),
            KeyState::OtherEnvironment(reason) => Point::unknown(
                CLIENT_KEY,
                format!(
                    "the Client Key does not work in the environment of the Server API Key ({reason})"
                ),
                "set `client_key` in [imgwire] to the Client Key of the environment of `api_key`",
            ),
            KeyState::Refused(reason) => Point::unknown(
                CLIENT_KEY,
                format!(
                    "Imgwire does not accept the Client Key, which is revoked or mistyped ({reason})"
                ),
                "set `client_key` in [imgwire] to the Client Key (ck_...) that your pages use",
            ),
            KeyState::Unclear if names_it => Point::ok(
                CLIENT_KEY,
                format!("an upload without a token is refused ({reason})"),
            ),
            KeyState::Unclear => other(),
        }
    }

    /// Reads an image with the Client Key, which may read every image of its environment.
    async fn state_of(&self, key: &ClientKey, found: &Found) -> KeyState {
        let made_up = Uuid::new_v4().to_string();
        let id = found.image.as_deref().unwrap_or(&made_up);
        let path = format!("{IMAGES}{id}");
        let Ok(read) = self.call(Method::GET, &path, Key::Client(key), None).await else {
            return KeyState::Unclear;
        };
        let reason = read.describe();
        let kind = read.refusal();
        match (read.status.as_u16(), kind) {
            (200, _) if is_image(&read, id) => KeyState::SameEnvironment,
            (401, _) | (_, Some(ErrorKind::InvalidToken)) => KeyState::Refused(reason),
            (404, _) if found.image.is_none() => KeyState::Accepted,
            (403 | 404, Some(_)) if found.image.is_some() => KeyState::OtherEnvironment(reason),
            _ => KeyState::Unclear,
        }
    }
}

fn is_image(response: &Response, id: &str) -> bool {
    let body = response.json().unwrap_or(Value::Null);
    body["id"].as_str() == Some(id)
}

/// The origin of a page that Imgwire accepts uploads from, so that it does not refuse the upload for its origin.
fn page_of(host: &str) -> Option<HeaderValue> {
    let host = host.trim().replace('*', "imgwire-gate");
    let scheme = if host.starts_with("localhost") {
        "http"
    } else {
        "https"
    };
    HeaderValue::from_str(&format!("{scheme}://{host}")).ok()
}

fn unknown(message: String) -> Point {
    Point::unknown(
        CLIENT_KEY,
        message,
        "look at the Client Key in Imgwire's dashboard: it must be active, and unsigned uploads (allow_unsigned_upload) \
         must be off",
    )
}
