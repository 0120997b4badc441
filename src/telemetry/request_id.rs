//! The request id, which is in the response and in all log lines of a request.

use actix_web::{
    HttpMessage as _, HttpRequest,
    dev::ServiceRequest,
    http::header::{HeaderMap, HeaderName, HeaderValue},
};
use serde::Serialize;
use uuid::{Uuid, fmt::Hyphenated};

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The maximum length of an id that a client or proxy sends.
const MAX_BYTES: usize = 128;

/// An id of visible ASCII characters.
#[derive(Clone, Debug, Serialize)]
pub struct RequestId(String);

impl RequestId {
    /// Takes a valid id from the request, or generates one. Later calls return the same id.
    pub fn assign(request: &ServiceRequest) -> Self {
        if let Some(id) = request.extensions().get::<Self>() {
            return id.clone();
        }
        let id = inbound(request.headers()).unwrap_or_else(Self::generate);
        request.extensions_mut().insert(id.clone());
        id
    }

    fn generate() -> Self {
        let mut text = [0; Hyphenated::LENGTH];
        Self((*Uuid::new_v4().hyphenated().encode_lower(&mut text)).to_owned())
    }

    #[must_use]
    pub fn of(request: &HttpRequest) -> Self {
        let id = request.extensions().get::<Self>().cloned();
        id.unwrap_or_else(|| Self(String::new()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn header_value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("a request id is visible ASCII")
    }
}

fn inbound(headers: &HeaderMap) -> Option<RequestId> {
    let mut values = headers.get_all(X_REQUEST_ID);
    let text = values.next()?.to_str().ok()?;
    let is_valid = !text.is_empty()
        && text.len() <= MAX_BYTES
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte));
    (is_valid && values.next().is_none()).then(|| RequestId(text.to_owned()))
}
