//! One attempt to create a token, and how its answer is read.

use std::time::{Duration, UNIX_EPOCH};

use actix_web::http::{StatusCode, header};
use awc::{
    ClientResponse, SendClientRequest,
    error::{ConnectError, SendRequestError},
};
use bytes::Bytes;
use jiff::Timestamp;
use policies::Clock;
use serde::Deserialize;
use serde_json::Value;

use super::{ImgwireError, UploadToken, aside::without_tasks, connector::noting_connection};

/// The longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// What an attempt came to.
pub(super) struct Attempt {
    pub(super) result: Result<UploadToken, ImgwireError>,
    /// Whether a kept connection turned out to be closed: the attempt did not reach Imgwire.
    pub(super) was_stale: bool,
}

/// Waits for the answer to what is `sending`, reads it, and gives up after `timeout`.
pub(super) async fn run(
    sending: SendClientRequest,
    timeout: Duration,
    clock: &dyn Clock,
) -> Attempt {
    let exchange = async {
        let (sent, opened) = noting_connection(without_tasks(sending)).await;
        match sent {
            Ok(response) => Attempt {
                result: read(response, clock).await,
                was_stale: false,
            },
            Err(error) => {
                let error = from_awc(&error);
                Attempt {
                    was_stale: !opened && matches!(error, ImgwireError::Broken(_)),
                    result: Err(error),
                }
            }
        }
    };
    tokio::time::timeout(timeout, exchange)
        .await
        .unwrap_or(Attempt {
            result: Err(ImgwireError::Timeout),
            was_stale: false,
        })
}

fn from_awc(error: &SendRequestError) -> ImgwireError {
    match error {
        SendRequestError::Timeout | SendRequestError::Connect(ConnectError::Timeout) => {
            ImgwireError::Timeout
        }
        // awc's word for a connection that ends where an answer was to begin.
        SendRequestError::Connect(ConnectError::Disconnected) => {
            ImgwireError::Broken("closed before an answer".to_owned())
        }
        SendRequestError::Connect(error) => ImgwireError::Unreachable(error.to_string()),
        error => ImgwireError::Broken(format!("{error:?}")),
    }
}

async fn read<S>(
    mut response: ClientResponse<S>,
    clock: &dyn Clock,
) -> Result<UploadToken, ImgwireError>
where
    S: futures_util::Stream<Item = Result<Bytes, awc::error::PayloadError>> + 'static,
{
    let status = response.status();
    let retry_after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| wait(value.to_str().ok()?, clock));
    // Read whatever the status is, so that the connection can be kept.
    let body = response.body().limit(MAX_ANSWER_BYTES).await;
    if status != StatusCode::OK {
        return Err(ImgwireError::Refused {
            status: status.as_u16(),
            retry_after,
        });
    }
    match body {
        Ok(body) => token(&body),
        Err(awc::error::PayloadError::Overflow) => Err(ImgwireError::Unreadable("it is too long")),
        Err(error) => Err(ImgwireError::Broken(error.to_string())),
    }
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

/// Reads an answer leniently: only the token is needed.
fn token(body: &[u8]) -> Result<UploadToken, ImgwireError> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<Value>,
        expires_at: Option<Value>,
    }

    let answer: Answer = serde_json::from_slice(body)
        .map_err(|_| ImgwireError::Unreadable("it is no JSON object"))?;
    let Some(Value::String(token)) = answer.token else {
        return Err(ImgwireError::Unreadable("it has no token"));
    };
    if token.is_empty() {
        return Err(ImgwireError::Unreadable("its token is empty"));
    }
    let expires_at = answer.expires_at.as_ref().and_then(Value::as_str);
    Ok(UploadToken {
        token,
        expires_at: expires_at.and_then(|text| text.parse::<Timestamp>().ok()),
    })
}
