//! The client of Imgwire. Each worker has one.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix_web::{
    http::{
        Method, Uri,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    rt,
};
use awc::{FrozenClientRequest, SendClientRequest};
use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use futures_util::future::LocalBoxFuture;
use policies::Clock;
use rustls::ClientConfig;
use secrecy::ExposeSecret as _;

use super::{
    api_key::ApiKey,
    error::ImgwireError,
    response::read_response,
    token::{TokenOutcome, UploadToken},
    upstream::Upstream,
};
use crate::{
    config::{ImgwireSettings, imgwire::EnvironmentId},
    outbound::{PoolSettings, Resend, call, client, is_tls, plain},
    telemetry::RequestId,
};

const TOKEN_PATH: &str = "/api/v1/images/token";

/// Per worker.
const MAX_CONNECTIONS: usize = 1024;

const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Doubles with each attempt, with jitter.
const INITIAL_BACKOFF: Duration = Duration::from_millis(100);

/// While Imgwire refuses requests, the gate asks again after this many times the breaker's pause between probes: half a
/// minute by default.
const PROBES_PER_REFUSED_REQUEST: u32 = 60;

const ENVIRONMENT_ID: HeaderName = HeaderName::from_static("x-environment-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The id of the request that needs a token, for the log, and the W3C trace context that Imgwire receives.
#[derive(Clone, Debug)]
pub struct TraceContext {
    pub request_id: RequestId,
    pub parent: Option<HeaderValue>,
    pub state: Option<HeaderValue>,
}

pub struct Client {
    unsigned: UnsignedRequest,
    /// Built once for each API key, because requests differ only in their trace headers.
    signed: RefCell<Rc<SignedRequest>>,
    timeout: Duration,
    deadline: Duration,
    backoff: ExponentialBuilder,
    upstream: Arc<Upstream>,
    clock: Arc<dyn Clock>,
}

impl Client {
    /// Builds the client of the current worker.
    #[must_use]
    pub fn new(
        settings: &ImgwireSettings,
        tls: &Arc<ClientConfig>,
        upstream: Arc<Upstream>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let timeout = settings.timeout.get();
        let unsigned = UnsignedRequest::new(settings, tls, &upstream);
        let signed = unsigned.sign(&upstream.api_key.load());
        Self {
            unsigned,
            signed: RefCell::new(Rc::new(signed)),
            timeout,
            deadline: settings.deadline.get(),
            backoff: ExponentialBuilder::new()
                .with_min_delay(INITIAL_BACKOFF)
                .with_max_times(settings.retries.get())
                .with_jitter(),
            upstream,
            clock,
        }
    }

    /// Takes a token from the pool, or creates one.
    pub async fn token(self: &Rc<Self>, context: &TraceContext) -> TokenOutcome {
        let Some(pool) = &self.upstream.pool else {
            return self.create(context).await;
        };
        let pooled = pool.take();
        self.fill_pool();
        let Some(token) = pooled else {
            return self.create(context).await;
        };
        // The first call replaces the token. This one adds another while the pool holds too few.
        self.fill_pool();
        TokenOutcome {
            result: Ok(token),
            attempts: 0,
            took: Duration::ZERO,
        }
    }

    /// Creates one token for the pool in the background, if the pool holds too few.
    fn fill_pool(self: &Rc<Self>) {
        let Some(permit) = self.upstream.pool.as_ref().and_then(|pool| pool.permit()) else {
            return;
        };
        let client = self.clone();
        rt::spawn(async move {
            // Without a retry: the next request tries again.
            if let (Ok(token), generation) = client.attempt(None, client.timeout).await {
                permit.0.add(token, generation);
            }
        });
    }

    /// Makes as many attempts as the settings and the retry budget allow, within the deadline.
    async fn create(self: &Rc<Self>, context: &TraceContext) -> TokenOutcome {
        let started = self.clock.elapsed();
        let took = || self.clock.elapsed().saturating_sub(started);
        self.upstream.peer.budget.deposit();
        let mut backoff = self.backoff.build();
        let mut attempts = 0;
        let result = loop {
            let left = self.deadline.saturating_sub(took());
            if left.is_zero() {
                break Err(ImgwireError::Timeout);
            }
            let (result, _) = self.attempt(Some(context), left.min(self.timeout)).await;
            if matches!(result, Err(ImgwireError::CircuitOpen)) {
                break result;
            }
            attempts += 1;
            let Err(error) = &result else {
                break result;
            };
            let body = error.body();
            tracing::warn!(
                request_id = context.request_id.as_str(),
                attempt = attempts,
                %error,
                status = match error { ImgwireError::Refused { status, .. } => Some(status), _ => None },
                error_type = body.and_then(|body| body.error_type.as_deref()),
                detail = body.and_then(|body| body.detail.as_deref()),
                elapsed_ms = took().as_millis() as u64,
                "attempt to create an upload token failed"
            );
            let Some(delay) = self.retry_delay(error, &mut backoff, took()) else {
                break result;
            };
            tokio::time::sleep(delay).await;
        };
        TokenOutcome {
            result,
            attempts,
            took: took(),
        }
    }

    /// Returns the delay before a retry, or `None` if a retry cannot help or would exceed the deadline or the budget.
    fn retry_delay(
        &self,
        error: &ImgwireError,
        backoff: &mut ExponentialBackoff,
        elapsed: Duration,
    ) -> Option<Duration> {
        if !error.is_transient() {
            return None;
        }
        let mut delay = backoff.next()?;
        if let ImgwireError::Refused { retry_after, .. } = error {
            delay = delay.max(retry_after.unwrap_or_default());
        }
        if elapsed.saturating_add(delay) >= self.deadline {
            return None;
        }
        if !self.upstream.peer.budget.withdraw() {
            self.upstream.metrics.retries_refused().inc();
            return None;
        }
        Some(delay)
    }

    /// Makes an attempt if the circuit breaker permits it, and records the result there. Returns the generation of the
    /// API key, too.
    async fn attempt(
        self: &Rc<Self>,
        context: Option<&TraceContext>,
        timeout: Duration,
    ) -> (Result<UploadToken, ImgwireError>, u64) {
        let breaker = &self.upstream.breaker;
        let Some(permit) = breaker.permit() else {
            return (Err(ImgwireError::CircuitOpen), 0);
        };
        let (result, generation) = self.send(context, timeout).await;
        if breaker.record(permit, result.as_ref().err()) {
            self.upstream.metrics.breaker_opened().inc();
            tracing::error!("circuit breaker opened: requests fail until Imgwire recovers");
            let client = self.clone();
            rt::spawn(async move { client.probe_until_recovery().await });
        }
        (result, generation)
    }

    /// Probes Imgwire in the background until it recovers. A probe that hangs does not delay the next one.
    async fn probe_until_recovery(self: Rc<Self>) {
        let breaker = &self.upstream.breaker;
        loop {
            tokio::time::sleep(breaker.probe_delay()).await;
            if !breaker.start_probe() {
                tracing::info!("circuit breaker closed: Imgwire recovered");
                return;
            }
            let client = self.clone();
            rt::spawn(async move {
                let (result, generation) = client.send(None, client.timeout).await;
                if let Err(error) = &result {
                    tracing::debug!(%error, "probe of Imgwire failed");
                }
                client.upstream.breaker.finish_probe(result.as_ref().err());
                // Without a pool, the token is not used and expires.
                if let (Ok(token), Some(pool)) = (result, &client.upstream.pool) {
                    pool.add(token, generation);
                }
            });
        }
    }

    /// Sends one request, which may reach Imgwire twice because an unused token does no harm. Records whether Imgwire
    /// refused it.
    async fn send(
        self: &Rc<Self>,
        context: Option<&TraceContext>,
        timeout: Duration,
    ) -> (Result<UploadToken, ImgwireError>, u64) {
        let seen = self.upstream.refusals.see();
        let signed = self.signed();
        let send = async || {
            let sending = start_request(&signed.request, context);
            read_response(sending, &*self.clock, &signed.key.secret).await
        };
        let peer = &self.upstream.peer;
        let response = call(peer, &Method::POST, Resend::Safe, timeout, send).await;
        let result = match response {
            Ok(response) => response.result,
            Err(error) => Err(error.into()),
        };
        self.upstream.record(seen, &result);
        if matches!(&result, Err(error) if error.refusal().is_some()) {
            self.ask_until_accepted();
        }
        (result, signed.key.generation)
    }

    /// The request with the API key in force.
    fn signed(&self) -> Rc<SignedRequest> {
        let key = self.upstream.api_key.load();
        let mut signed = self.signed.borrow_mut();
        if !Arc::ptr_eq(&key, &signed.key) {
            *signed = Rc::new(self.unsigned.sign(&key));
        }
        signed.clone()
    }

    /// Asks Imgwire again in the background while it refuses requests, so that the state also ends without traffic. One
    /// client at a time does it, however often Imgwire changes its mind.
    fn ask_until_accepted(self: &Rc<Self>) {
        if self.upstream.is_asking.swap(true, Ordering::Relaxed) {
            return;
        }
        let client = self.clone();
        let asking: LocalBoxFuture<'static, ()> = Box::pin(async move {
            let upstream = &client.upstream;
            let pause = upstream.breaker.probe_interval() * PROBES_PER_REFUSED_REQUEST;
            loop {
                tokio::time::sleep(pause).await;
                if upstream.refusals.current().is_none() {
                    break;
                }
                let (result, generation) = client.send(None, client.timeout).await;
                // Without a pool, the token is not used and expires.
                if let (Ok(token), Some(pool)) = (result, &upstream.pool) {
                    pool.add(token, generation);
                }
            }
            // If a refusal began meanwhile, the next refused request starts this again.
            upstream.is_asking.store(false, Ordering::Relaxed);
        });
        rt::spawn(asking);
    }
}

/// What all requests of a worker have in common.
struct UnsignedRequest {
    client: awc::Client,
    url: Uri,
    host: HeaderValue,
    environment_id: Option<EnvironmentId>,
}

struct SignedRequest {
    request: FrozenClientRequest,
    /// Also to keep it out of the log.
    key: Arc<ApiKey>,
}

impl UnsignedRequest {
    fn new(settings: &ImgwireSettings, tls: &Arc<ClientConfig>, upstream: &Upstream) -> Self {
        let url = format!("{}{TOKEN_PATH}", settings.base_url.as_str());
        let url = Uri::try_from(url).expect("the config checks that a base URL is a URL");
        let pool = PoolSettings {
            limit: MAX_CONNECTIONS,
            keep_alive: KEEP_ALIVE,
            connect_timeout: settings.timeout.get(),
        };
        let client = client(&upstream.peer, is_tls(&url).then_some(tls), &pool);
        let (url, host) = plain(&url).expect("the config checks that a base URL has a host");
        Self {
            client,
            url,
            host,
            environment_id: settings.environment_id.clone(),
        }
    }

    fn sign(&self, key: &Arc<ApiKey>) -> SignedRequest {
        let bearer = format!("Bearer {}", key.secret.expose_secret());
        let mut authorization = HeaderValue::from_str(&bearer)
            .expect("the config checks that the key is visible ASCII");
        authorization.set_sensitive(true);
        let mut request = self
            .client
            .post(self.url.clone())
            .insert_header((header::HOST, self.host.clone()))
            .insert_header((header::AUTHORIZATION, authorization));
        if let Some(id) = &self.environment_id {
            let id = HeaderValue::from_str(id.as_str())
                .expect("the config checks that the id is visible ASCII");
            request = request.insert_header((ENVIRONMENT_ID, id));
        }
        let request = request
            .freeze()
            .expect("the config checks that a base URL has a scheme and a host");
        SignedRequest {
            request,
            key: key.clone(),
        }
    }
}

/// Sends `request` with the headers of the trace context.
fn start_request(
    request: &FrozenClientRequest,
    context: Option<&TraceContext>,
) -> SendClientRequest {
    let Some(parent) = context.and_then(|context| context.parent.clone()) else {
        return request.send();
    };
    let mut headers = HeaderMap::new();
    headers.insert(TRACEPARENT, parent);
    if let Some(state) = context.and_then(|context| context.state.clone()) {
        headers.insert(TRACESTATE, state);
    }
    request.extra_headers(headers).send()
}
