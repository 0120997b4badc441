//! Reads Imgwire's response to a call.

use std::time::{Duration, UNIX_EPOCH};

use actix_web::http::{
    StatusCode,
    header::{self, HeaderMap},
};
use awc::SendClientRequest;
use policies::Clock;
use secrecy::SecretString;

use super::{calls::Call, error::ImgwireError, error_body::ErrorBody};
use crate::outbound::{HttpError, Response};

/// A response, already parsed.
pub(super) struct CallResponse<T> {
    status: StatusCode,
    pub(super) result: Result<T, ImgwireError>,
}

impl<T> Response for CallResponse<T> {
    fn status(&self) -> StatusCode {
        self.status
    }
}

/// Reads the result of the call from the response, or why it failed. `key` does not get into the log, even if the
/// response contains it.
pub(super) async fn read_response<C: Call>(
    call: &C,
    sending: SendClientRequest,
    clock: &dyn Clock,
    key: &SecretString,
) -> Result<CallResponse<C::Output>, HttpError> {
    let mut response = sending.await.map_err(|error| HttpError::from(&error))?;
    let status = response.status();
    let headers = response.headers();
    let retry_after = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| parse_retry_after(value.to_str().ok()?, clock));
    let is_html = is_html(headers);
    // Read for every status, so that the connection can be reused.
    let body = response.body().limit(C::MAX_RESPONSE_BYTES).await;
    let result = if !C::is_success(status) {
        let code = status.as_u16();
        let body = ErrorBody::parse(code, &body.unwrap_or_default(), key);
        // A 404 without a body of Imgwire may come from a proxy.
        let is_missing = status == StatusCode::NOT_FOUND && !body.is_empty();
        match call.without_image().filter(|_| is_missing) {
            Some(output) => Ok(output),
            None => Err(ImgwireError::Refused {
                status: code,
                retry_after,
                body,
            }),
        }
    } else if is_html {
        Err(ImgwireError::WebPage)
    } else {
        let body = body?;
        if body.trim_ascii_start().starts_with(b"<") {
            // A web page without its content type.
            Err(ImgwireError::WebPage)
        } else {
            call.read(&body, key)
        }
    };
    Ok(CallResponse { status, result })
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
