//! The client of Imgwire: one for each worker.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use actix_web::{
    http::{
        StatusCode, Uri,
        header::{self, HeaderName, HeaderValue},
    },
    rt,
};
use awc::{FrozenClientRequest, SendClientRequest};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use jiff::Timestamp;
use policies::Clock;
use rustls::ClientConfig;
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    error::ImgwireError,
    token::{Creation, UploadToken},
    upstream::Upstream,
};
use crate::{
    config::ImgwireSettings,
    outbound::{HttpError, Object, Peer, PoolSettings, Repeat, call, client, is_tls, plain},
    telemetry::RequestId,
};

const TOKEN_PATH: &str = "/api/v1/images/token";

/// Per worker.
const MAX_CONNECTIONS: usize = 1024;

const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Doubled before each further attempt, and jittered.
const FIRST_WAIT: Duration = Duration::from_millis(100);

const MAX_ANSWER_BYTES: usize = 64 * 1024;

const ENVIRONMENT_ID: HeaderName = HeaderName::from_static("x-environment-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The request that needs a token: for the log, and its W3C trace context, which is passed on unchanged.
#[derive(Clone, Debug)]
pub struct Caller {
    pub request_id: RequestId,
    pub parent: Option<HeaderValue>,
    pub state: Option<HeaderValue>,
}

pub struct Client {
    /// Made once, because requests differ only in their trace headers.
    creation: FrozenClientRequest,
    timeout: Duration,
    deadline: Duration,
    waits: ExponentialBuilder,
    upstream: Arc<Upstream>,
    clock: Arc<dyn Clock>,
}

impl Client {
    /// Builds the client of the current worker.
    #[must_use]
    pub fn new(
        settings: &ImgwireSettings,
        api_key: &SecretString,
        tls: &Arc<ClientConfig>,
        upstream: Arc<Upstream>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let timeout = settings.timeout.get();
        Self {
            creation: creation_request(&upstream.peer, tls, settings, api_key),
            timeout,
            deadline: settings.deadline.get(),
            waits: ExponentialBuilder::new()
                .with_min_delay(FIRST_WAIT)
                .with_max_times(settings.retries.get())
                .with_jitter(),
            upstream,
            clock,
        }
    }

    /// A token from the pool, or a new one.
    pub async fn token(self: &Rc<Self>, caller: &Caller) -> Creation {
        let Some(pool) = &self.upstream.pool else {
            return self.create(caller).await;
        };
        let creation = match pool.take() {
            Some(token) => Creation {
                result: Ok(token),
                attempts: 0,
                took: Duration::ZERO,
            },
            None => {
                self.make_ahead();
                return self.create(caller).await;
            }
        };
        // One to replace it, and one more while the pool holds too few.
        self.make_ahead();
        self.make_ahead();
        creation
    }

    /// Makes one token for the pool in the background, if the pool wants one.
    fn make_ahead(self: &Rc<Self>) {
        let Some(making) = self.upstream.pool.as_ref().and_then(|pool| pool.make()) else {
            return;
        };
        let client = self.clone();
        rt::spawn(async move {
            // One attempt: the next request starts another.
            if let Ok(token) = client.guarded_attempt(None, client.timeout).await {
                making.0.keep(token);
            }
        });
    }

    /// Makes as many attempts as the settings and the retry budget allow, within the deadline.
    async fn create(self: &Rc<Self>, caller: &Caller) -> Creation {
        let started = self.clock.elapsed();
        let took = || self.clock.elapsed().saturating_sub(started);
        self.upstream.peer.budget.deposit();
        let mut waits = self.waits.build();
        let mut attempts = 0;
        let result = loop {
            let left = self.deadline.saturating_sub(took());
            if left.is_zero() {
                break Err(ImgwireError::Timeout);
            }
            let timeout = left.min(self.timeout);
            let error = match self.guarded_attempt(Some(caller), timeout).await {
                Err(error @ ImgwireError::Down) => break Err(error),
                Err(error) => error,
                Ok(token) => {
                    attempts += 1;
                    break Ok(token);
                }
            };
            attempts += 1;
            tracing::warn!(
                request_id = caller.request_id.as_str(),
                attempt = attempts,
                error = %error,
                status = match error { ImgwireError::Refused { status, .. } => Some(status), _ => None },
                elapsed_ms = took().as_millis() as u64,
                "creating a token failed"
            );
            if !error.is_transient() {
                break Err(error);
            }
            let Some(wait) = waits.next() else {
                break Err(error);
            };
            let asked = match error {
                ImgwireError::Refused { retry_after, .. } => retry_after.unwrap_or_default(),
                _ => Duration::ZERO,
            };
            let wait = wait.max(asked);
            if took().saturating_add(wait) >= self.deadline {
                break Err(error);
            }
            if !self.upstream.peer.budget.withdraw() {
                self.upstream.metrics.retries_refused().inc();
                break Err(error);
            }
            tokio::time::sleep(wait).await;
        };
        Creation {
            result,
            attempts,
            took: took(),
        }
    }

    /// Makes an attempt if the breaker allows it, and reports the result to the breaker.
    async fn guarded_attempt(
        self: &Rc<Self>,
        caller: Option<&Caller>,
        timeout: Duration,
    ) -> Result<UploadToken, ImgwireError> {
        let breaker = &self.upstream.breaker;
        let pass = breaker.pass().ok_or(ImgwireError::Down)?;
        let result = self.attempt(caller, timeout).await;
        if breaker.note(pass, result.as_ref().err()) {
            self.upstream.metrics.breaker_opened().inc();
            tracing::error!("Imgwire is down: requests fail at once until it is back");
            let client = self.clone();
            rt::spawn(async move { client.try_until_it_is_back().await });
        }
        result
    }

    /// Tries Imgwire in the background until it is back. A trial that hangs does not delay the next one.
    async fn try_until_it_is_back(self: Rc<Self>) {
        let breaker = &self.upstream.breaker;
        loop {
            tokio::time::sleep(breaker.pause()).await;
            if !breaker.begin_trial() {
                tracing::info!("Imgwire is back");
                return;
            }
            let client = self.clone();
            rt::spawn(async move {
                let made = client.attempt(None, client.timeout).await;
                if let Err(error) = &made {
                    tracing::debug!(%error, "a trial of Imgwire failed");
                }
                client.upstream.breaker.end_trial(made.as_ref().err());
                // An unused token expires by itself.
                if let (Ok(token), Some(pool)) = (made, &client.upstream.pool) {
                    pool.keep(token);
                }
            });
        }
    }

    /// Makes one attempt. The request may reach Imgwire twice, because an unused token does no harm.
    async fn attempt(
        &self,
        caller: Option<&Caller>,
        timeout: Duration,
    ) -> Result<UploadToken, ImgwireError> {
        let attempt = async || read_answer(send(&self.creation, caller), &*self.clock).await;
        call(&self.upstream.peer, Repeat::Harmless, timeout, attempt).await?
    }
}

fn creation_request(
    peer: &Arc<Peer>,
    tls: &Arc<ClientConfig>,
    settings: &ImgwireSettings,
    api_key: &SecretString,
) -> FrozenClientRequest {
    let url = format!("{}{TOKEN_PATH}", settings.base_url.as_str());
    let url = Uri::try_from(url).expect("a base URL is a URL, as the settings check");
    let pool = PoolSettings {
        limit: MAX_CONNECTIONS,
        keep_alive: KEEP_ALIVE,
        connect_timeout: settings.timeout.get(),
    };
    let client = client(peer, is_tls(&url).then_some(tls), &pool);
    let (url, host) = plain(&url).expect("a base URL has a host, as the settings check");
    let bearer = format!("Bearer {}", api_key.expose_secret());
    let mut authorization =
        HeaderValue::from_str(&bearer).expect("a key is visible ASCII, as the settings check");
    authorization.set_sensitive(true);
    let mut request = client
        .post(url)
        .insert_header((header::HOST, host))
        .insert_header((header::AUTHORIZATION, authorization));
    if let Some(id) = &settings.environment_id {
        let id = HeaderValue::from_str(id.as_str())
            .expect("an environment's id is visible ASCII, as the settings check");
        request = request.insert_header((ENVIRONMENT_ID, id));
    }
    request
        .freeze()
        .expect("a base URL has a scheme and a host, as the settings check")
}

/// Sends `request` with the caller's trace headers.
fn send(request: &FrozenClientRequest, caller: Option<&Caller>) -> SendClientRequest {
    let Some(caller) = caller else {
        return request.send();
    };
    match (&caller.parent, &caller.state) {
        (None, _) => request.send(),
        (Some(parent), None) => request.extra_header((TRACEPARENT, parent.clone())).send(),
        (Some(parent), Some(state)) => request
            .extra_header((TRACEPARENT, parent.clone()))
            .extra_header((TRACESTATE, state.clone()))
            .send(),
    }
}

/// Waits for the response and reads the token, or why Imgwire gave none.
async fn read_answer(
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
