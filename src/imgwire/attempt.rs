//! One attempt to create a token, and how its answer is read.

use std::time::{Duration, UNIX_EPOCH};

use actix_web::http::{StatusCode, header};
use awc::SendClientRequest;
use jiff::Timestamp;
use policies::Clock;

use super::{ImgwireError, UploadToken};
use crate::outbound::{HttpError, Object};

const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Waits for the response and reads the token, or why Imgwire gave none.
pub(super) async fn run(
    sending: SendClientRequest,
    clock: &dyn Clock,
) -> Result<Result<UploadToken, ImgwireError>, HttpError> {
    let mut response = sending.await.map_err(|error| HttpError::from(&error))?;
    let status = response.status();
    let retry_after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| wait(value.to_str().ok()?, clock));
    // Read for every status, so that the connection can be kept.
    let body = response.body().limit(MAX_ANSWER_BYTES).await;
    if status != StatusCode::OK {
        return Ok(Err(ImgwireError::Refused {
            status: status.as_u16(),
            retry_after,
        }));
    }
    Ok(token(&body?))
}

/// Reads `Retry-After` (RFC 9110, 10.2.3): seconds, or a date.
fn wait(text: &str, clock: &dyn Clock) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let date = date.duration_since(UNIX_EPOCH).ok()?;
    let now = u64::try_from(clock.now().as_second()).ok()?;
    Some(date.saturating_sub(Duration::from_secs(now)))
}

/// Reads a response leniently: only the token is required.
fn token(body: &[u8]) -> Result<UploadToken, ImgwireError> {
    let mut response = Object::parse(body)?;
    let token = response.take_text("token")?;
    if token.is_empty() {
        return Err(ImgwireError::Unreadable("its `token` is empty".to_owned()));
    }
    let expires_at = response.take_text("expires_at").ok();
    Ok(UploadToken {
        token,
        expires_at: expires_at.and_then(|text| text.parse::<Timestamp>().ok()),
    })
}
