//! The id of a request: in its answer, and in every line of the log that is about it.

use std::fmt::Write as _;

use actix_web::{
    HttpMessage as _, HttpRequest,
    dev::ServiceRequest,
    http::header::{HeaderMap, HeaderName, HeaderValue},
};
use serde::Serialize;

/// The header that carries it, in and out.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest inbound id that is kept.
const MAX_BYTES: usize = 128;

/// An id of visible ASCII characters.
#[derive(Clone, Debug, Serialize)]
pub struct RequestId(String);

impl RequestId {
    /// Keeps the id that the request came with, if it is sane, or else takes the one that was made for it.
    /// Later calls give the same.
    pub fn assign(request: &ServiceRequest) -> Self {
        let id = inbound(request.headers()).unwrap_or_else(|| {
            let made = request
                .extensions()
                .get::<tracing_actix_web::RequestId>()
                .copied();
            let mut id = String::with_capacity(36);
            if let Some(made) = made {
                // Writing to a String cannot fail.
                let _ = write!(id, "{made}");
            }
            Self(id)
        });
        request.extensions_mut().insert(id.clone());
        id
    }

    /// The id of a request that has one.
    #[must_use]
    pub fn of(request: &HttpRequest) -> Self {
        let id = request.extensions().get::<Self>().cloned();
        id.unwrap_or_else(|| Self(String::new()))
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as the value of [`X_REQUEST_ID`].
    #[must_use]
    pub fn header_value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("an id is visible ASCII")
    }
}

fn inbound(headers: &HeaderMap) -> Option<RequestId> {
    let mut values = headers.get_all(X_REQUEST_ID);
    let text = values.next()?.to_str().ok()?;
    let is_sane = !text.is_empty()
        && text.len() <= MAX_BYTES
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte));
    (is_sane && values.next().is_none()).then(|| RequestId(text.to_owned()))
}
