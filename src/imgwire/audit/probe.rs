//! Tries an upload without a token: with the public Client Key, as anyone can.

use actix_web::http::{Method, StatusCode, header::HeaderValue};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Audit, CLIENT_KEY, IMAGES, Key,
    response::{Response, is_plain},
};
use crate::{
    config::imgwire::ClientKey, imgwire::error_body::ErrorKind, outbound::HttpError,
    telemetry::Point,
};

/// Every Client Key accepts this size.
const BYTES: u32 = 5 * 1024;

/// The largest page of a list.
const PAGE: usize = 100;

const BYPASS: &str = "anyone with the Client Key can upload without this gate";

const REQUIRE_TOKENS: &str =
    "turn off unsigned uploads (allow_unsigned_upload) of this Client Key in Imgwire's dashboard";

/// What a read of an image with the Client Key shows about it.
enum KeyState {
    /// It reads an image of the environment of the Server API Key.
    SameEnvironment,
    /// It cannot read an image of the environment.
    OtherEnvironment(String),
    Refused(String),
    /// The environment has no image, or the answer does not tell.
    Unclear,
}

impl Audit<'_> {
    /// `listed` is a list of images, and Imgwire accepts uploads from `host`.
    pub(super) async fn client_key(&self, listed: &Response, host: Option<&str>) -> Point {
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
        let origin = host.and_then(page_of);
        let path = format!("{IMAGES}standard_upload");
        let body = Some((&upload, origin));
        let tried = self.call(Method::POST, &path, Key::Client(key), body).await;
        match tried {
            Err(error @ HttpError::Unreachable(_)) => {
                unknown(format!("an upload without a token was not tried: {error}"))
            }
            Err(error) => self.lost(&error.to_string(), &name).await,
            Ok(response) if response.status.is_success() => self.accepted(&response, &name).await,
            Ok(response) if response.status.is_server_error() => {
                self.lost(&response.describe(), &name).await
            }
            Ok(response) => self.refused(&response, key, listed).await,
        }
    }

    async fn accepted(&self, response: &Response, name: &str) -> Point {
        let body = response.json().unwrap_or_default();
        let id = body["image"]["id"].as_str().filter(|id| is_plain(id));
        let id = match id {
            Some(id) => Some(id.to_owned()),
            None => self.find(name).await,
        };
        match id {
            Some(id) => self.delete(&id).await,
            None => Point::failed(
                CLIENT_KEY,
                format!(
                    "{BYPASS}; the response has no image id, and the upload that was tried has the file name {name}"
                ),
                format!("{REQUIRE_TOKENS}, and delete the image with the file name {name} there"),
            ),
        }
    }

    /// Finds out whether Imgwire accepted an upload although its answer was lost.
    async fn lost(&self, reason: &str, name: &str) -> Point {
        match self.find(name).await {
            Some(id) => self.delete(&id).await,
            None => Point::unknown(
                CLIENT_KEY,
                format!(
                    "no answer to an upload without a token ({reason}); Imgwire may have created an image with the file \
                     name {name}"
                ),
                format!(
                    "run it again, and look for the file name {name} in Imgwire's dashboard: if it is there, delete it, \
                     and turn off unsigned uploads (allow_unsigned_upload) of this Client Key"
                ),
            ),
        }
    }

    /// Looks for an image by its file name. The order of the list is not documented, so a new image is on the first or
    /// on the last page.
    async fn find(&self, name: &str) -> Option<String> {
        let named = |listed: &Response| {
            let images = listed.images();
            let mut named = images
                .iter()
                .filter(|image| image["original_filename"].as_str() == Some(name));
            Some(named.next()?["id"].as_str()?.to_owned())
        };
        let first = self.page(1).await?;
        let found = named(&first);
        let total = first.headers.get("x-total-count");
        let total: Option<usize> = total.and_then(|total| total.to_str().ok()?.parse().ok());
        let last = total.unwrap_or_default().div_ceil(PAGE);
        match found {
            None if last > 1 => named(&self.page(last).await?),
            found => found,
        }
    }

    async fn page(&self, page: usize) -> Option<Response> {
        let path = format!("{IMAGES}?page={page}&limit={PAGE}");
        let listed = self.call_with_retry(Method::GET, &path, Key::Server).await;
        listed.ok()
    }

    /// Deletes an upload that was accepted.
    async fn delete(&self, id: &str) -> Point {
        let path = format!("{IMAGES}{id}");
        let problem = match self.call(Method::DELETE, &path, Key::Server, None).await {
            Ok(response) if response.status.is_success() => None,
            // The Client Key may belong to another environment.
            Ok(response) if response.status == StatusCode::NOT_FOUND => {
                Some("not found with this Server API Key".to_owned())
            }
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

    /// Finds out whether the upload was refused because it has no token, or for another reason.
    async fn refused(&self, response: &Response, key: &ClientKey, listed: &Response) -> Point {
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
        // If the key works, an invalid token is the missing one.
        let may_mean_it = refusal == ErrorKind::InvalidToken && !response.names_a_limit();
        if !(names_it || may_mean_it) || refusal == ErrorKind::PaymentRequired {
            return other();
        }
        match self.state_of(key, listed).await {
            KeyState::SameEnvironment => Point::ok(
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
            // An empty environment is no reason for an alarm: the key of this config needs a token.
            KeyState::Unclear if names_it => Point::ok(
                CLIENT_KEY,
                format!(
                    "an upload without a token is refused ({reason}); no image shows whether the Client Key belongs to the \
                     environment of the Server API Key"
                ),
            ),
            KeyState::Unclear => other(),
        }
    }

    /// Reads an image with the Client Key, which may read every image of its environment.
    async fn state_of(&self, key: &ClientKey, listed: &Response) -> KeyState {
        let image = self.image(listed).await;
        let made_up = Uuid::new_v4().to_string();
        let id = image.as_deref().unwrap_or(&made_up);
        let path = format!("{IMAGES}{id}");
        let read = async |key| self.call_with_retry(Method::GET, &path, key).await;
        let Ok(response) = read(Key::Client(key)).await else {
            return KeyState::Unclear;
        };
        let reason = response.describe();
        match (response.status.as_u16(), response.refusal()) {
            (200, _) if is_image(&response, id) => KeyState::SameEnvironment,
            (401, _) | (_, Some(ErrorKind::InvalidToken)) => KeyState::Refused(reason),
            // The image may be gone since it was listed.
            (403 | 404, Some(_)) if image.is_some() => match read(Key::Server).await {
                Ok(response) if is_image(&response, id) => KeyState::OtherEnvironment(reason),
                _ => KeyState::Unclear,
            },
            _ => KeyState::Unclear,
        }
    }

    /// The id of an image that is not deleted, of the list or of the first images.
    async fn image(&self, listed: &Response) -> Option<String> {
        let id = |listed: &Response| {
            let images = listed.images();
            Some(images.first()?["id"].as_str()?.to_owned())
        };
        if let Some(id) = id(listed) {
            return Some(id);
        }
        id(&self.page(1).await?)
    }
}

/// A deleted image may still be shown.
fn is_image(response: &Response, id: &str) -> bool {
    let body = response.json().unwrap_or(Value::Null);
    body["id"].as_str() == Some(id) && body["deleted_at"].is_null()
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
