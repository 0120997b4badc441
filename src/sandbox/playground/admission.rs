//! Protects the playground from pages of other sites, including those that use DNS rebinding: it serves the tokens of
//! the demo users, and changes the rules.

use actix_web::{
    Error, HttpRequest,
    error::InternalError,
    http::header::{self, HeaderMap},
    web,
};
use policies::{Denial, excerpt};
use serde::Deserialize;

use crate::{
    http::{error::ApiError, host, management::is_same},
    telemetry::RequestId,
};

/// The header in which the page sends the key of its URL.
const KEY: &str = "x-playground-key";

/// The key in the page's URL, which the page sends with every call.
#[derive(Clone)]
pub(super) struct PageKey(pub(super) String);

/// Where a request must have the key.
pub(super) enum Key {
    NotRequired,
    /// For the calls of the page.
    InHeader,
    /// For the page itself.
    InUrl,
}

/// Requires a request to this machine, from a page of the same origin, with the key.
pub(super) fn admit(request: &HttpRequest, key: Key) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Query {
        key: String,
    }

    let checked = same_origin(request).and_then(|()| match key {
        Key::NotRequired => Ok(()),
        Key::InHeader => {
            let key = request.headers().get(KEY);
            has_key(request, key.and_then(|key| key.to_str().ok()))
        }
        Key::InUrl => {
            let query = web::Query::<Query>::from_query(request.query_string()).ok();
            has_key(request, query.as_ref().map(|query| query.key.as_str()))
        }
    });
    checked.map_err(|denial| refusal(request, denial))
}

fn same_origin(request: &HttpRequest) -> Result<(), Denial> {
    let headers = request.headers();
    host::check(headers, request.uri(), &[])?;
    for origin in headers.get_all(header::ORIGIN) {
        if Some(origin.as_bytes()) != own_origin(headers).as_deref().map(str::as_bytes) {
            let origin = excerpt(origin.to_str().unwrap_or_default());
            return Err(Denial::CrossSite(format!("Origin is `{origin}`")));
        }
    }
    Ok(())
}

/// The origin of a page that the sandbox serves under the `Host` of a request.
fn own_origin(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    Some(format!("http://{}", host.to_ascii_lowercase()))
}

fn has_key(request: &HttpRequest, key: Option<&str>) -> Result<(), Denial> {
    match (request.app_data::<PageKey>(), key) {
        (Some(PageKey(expected)), Some(key)) if is_same(expected, key) => Ok(()),
        _ => Err(Denial::CrossSite(
            "the key in the URL of the page is missing or wrong".to_owned(),
        )),
    }
}

fn refusal(request: &HttpRequest, denial: Denial) -> Error {
    let reason = denial.to_string();
    let error = ApiError::Denied(denial);
    let message = "open the playground at the address that the sandbox printed, including the key";
    let response = error.response_with(&RequestId::of(request), Some(message));
    InternalError::from_response(reason, response).into()
}
