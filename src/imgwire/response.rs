//! Reads Imgwire's response to the creation of a token.

use std::time::{Duration, UNIX_EPOCH};

use actix_web::http::{
    StatusCode,
    header::{self, HeaderMap},
};
use awc::SendClientRequest;
use jiff::Timestamp;
use policies::Clock;
use secrecy::SecretString;

use super::{error::ImgwireError, error_body::ErrorBody, log_text::log_text, token::UploadToken};
use crate::outbound::{HttpError, JsonObject, Response};

const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// Imgwire's ids are UUIDs.
const MAX_ID_BYTES: usize = 64;

/// A response, already parsed.
pub(super) struct TokenResponse {
    status: StatusCode,
    pub(super) result: Result<UploadToken, ImgwireError>,
}

impl Response for TokenResponse {
    fn status(&self) -> StatusCode {
        self.status
    }
}

/// Reads the token from the response, or why Imgwire created none. `key` does not get into the log, even if the response
/// contains it.
pub(super) async fn read_response(
    sending: SendClientRequest,
    clock: &dyn Clock,
    key: &SecretString,
) -> Result<TokenResponse, HttpError> {
    let mut response = sending.await.map_err(|error| HttpError::from(&error))?;
    let status = response.status();
    let headers = response.headers();
    let retry_after = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| parse_retry_after(value.to_str().ok()?, clock));
    let is_html = is_html(headers);
    // Read for every status, so that the connection can be reused.
    let body = response.body().limit(MAX_RESPONSE_BYTES).await;
    let result = if status != StatusCode::OK {
        let status = status.as_u16();
        Err(ImgwireError::Refused {
            status,
            retry_after,
            body: ErrorBody::parse(status, &body.unwrap_or_default(), key),
        })
    } else if is_html {
        Err(ImgwireError::WebPage)
    } else {
        parse_token(&body?, key)
    };
    Ok(TokenResponse { status, result })
}

fn is_html(headers: &HeaderMap) -> bool {
    const HTML: &str = "text/html";
    let value = headers.get(header::CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok()?.get(..HTML.len()));
    value.is_some_and(|value| value.eq_ignore_ascii_case(HTML))
}

/// Parses `Retry-After` (RFC 9110, 10.2.3): seconds, or a date.
fn parse_retry_after(text: &str, clock: &dyn Clock) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let date = date.duration_since(UNIX_EPOCH).ok()?;
    let now = u64::try_from(clock.now().as_second()).ok()?;
    Some(date.saturating_sub(Duration::from_secs(now)))
}

/// Only the token is required.
fn parse_token(body: &[u8], key: &SecretString) -> Result<UploadToken, ImgwireError> {
    // A web page without its content type.
    if body.trim_ascii_start().starts_with(b"<") {
        return Err(ImgwireError::WebPage);
    }
    let mut response = JsonObject::parse(body)?;
    let token = response.take_string("token")?;
    if token.is_empty() {
        return Err(ImgwireError::InvalidResponse(
            "its `token` is empty".to_owned(),
        ));
    }
    let id = response.take_string("id").ok();
    // A token in place of its id must not get into the log.
    let id = id.filter(|id| !id.contains(&token));
    let expires_at = response.take_string("expires_at").ok();
    Ok(UploadToken {
        id: id.and_then(|id| log_text(id, key, MAX_ID_BYTES)),
        token,
        expires_at: expires_at.and_then(|text| text.parse::<Timestamp>().ok()),
    })
}
