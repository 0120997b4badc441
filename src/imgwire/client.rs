//! The client of Imgwire. Each worker has one.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix_web::rt;
use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use policies::{Clock, ImageId};
use rustls::ClientConfig;

use super::{
    calls::{Call, CallOutcome, CreateToken, CreateUpload, DeleteImage, ReadImage},
    error::ImgwireError,
    image::{CreatedUpload, Image},
    request::{Requests, SignedRequests, TraceContext},
    response::read_response,
    token::UploadToken,
    upstream::Upstream,
};
use crate::{
    config::ImgwireSettings,
    outbound::{Resend, call},
};

/// Doubles with each attempt, with jitter.
const INITIAL_BACKOFF: Duration = Duration::from_millis(100);

/// While Imgwire refuses requests, the gate asks again after this many times the breaker's pause between probes: half a
/// minute by default.
const PROBES_PER_REFUSED_REQUEST: u32 = 60;

/// The result of one attempt.
struct Attempt<T> {
    result: Result<T, ImgwireError>,
    /// Of the API key.
    generation: u64,
    /// Whether the request was sent again, because its connection failed or was silent.
    is_resent: bool,
}

pub struct Client {
    requests: Rc<Requests>,
    /// Built once for each API key.
    signed: RefCell<Rc<SignedRequests>>,
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
        let requests = Requests::new(settings, tls, &upstream);
        let signed = requests.sign(&upstream.api_key.load());
        Self {
            requests,
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

    /// How long a call may take, with all attempts.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// How long one attempt may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Takes a token from the pool, or creates one.
    pub async fn token(self: &Rc<Self>, context: &TraceContext) -> CallOutcome<UploadToken> {
        let Some(pool) = &self.upstream.pool else {
            return self.run(&CreateToken, context).await;
        };
        let pooled = pool.take();
        self.fill_pool();
        let Some(token) = pooled else {
            return self.run(&CreateToken, context).await;
        };
        // The first call replaces the token. This one adds another while the pool holds too few.
        self.fill_pool();
        CallOutcome {
            result: Ok(token),
            attempts: 0,
            took: Duration::ZERO,
            may_have_acted: false,
            is_repeated: false,
        }
    }

    /// Creates an image without bytes. `body` is JSON with an idempotency key.
    pub async fn create_upload(
        self: &Rc<Self>,
        body: &str,
        context: &TraceContext,
    ) -> CallOutcome<CreatedUpload> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        self.run(&CreateUpload(body), context).await
    }

    /// Reads an image. `None` if Imgwire has none with this id.
    pub async fn image(
        self: &Rc<Self>,
        id: &ImageId,
        context: &TraceContext,
    ) -> CallOutcome<Option<Image>> {
        self.run(&ReadImage(id), context).await
    }

    /// Reads an image with one attempt and without a line in the log, for background work, which reads it again later
    /// anyway.
    pub async fn image_once(self: &Rc<Self>, id: &ImageId) -> Result<Option<Image>, ImgwireError> {
        self.attempt(&ReadImage(id), None, self.timeout)
            .await
            .result
    }

    /// Deletes an image. If Imgwire has none with this id, that is a success, too.
    pub async fn delete_image(
        self: &Rc<Self>,
        id: &ImageId,
        context: &TraceContext,
    ) -> CallOutcome<()> {
        self.run(&DeleteImage(id), context).await
    }

    /// Creates one token for the pool in the background, if the pool holds too few.
    fn fill_pool(self: &Rc<Self>) {
        let Some(permit) = self.upstream.pool.as_ref().and_then(|pool| pool.permit()) else {
            return;
        };
        let client = self.clone();
        rt::spawn(async move {
            // Without a retry: the next request tries again.
            let attempt = client.attempt(&CreateToken, None, client.timeout).await;
            if let Ok(token) = attempt.result {
                permit.0.add(token, attempt.generation);
            }
        });
    }

    /// Makes as many attempts as the settings and the retry budget allow, within the deadline.
    async fn run<C: Call>(
        self: &Rc<Self>,
        call: &C,
        context: &TraceContext,
    ) -> CallOutcome<C::Output> {
        let started = self.clock.elapsed();
        let took = || self.clock.elapsed().saturating_sub(started);
        self.upstream.peer.budget.deposit();
        let mut backoff = self.backoff.build();
        let mut attempts = 0;
        let (mut may_have_acted, mut is_resent) = (false, false);
        let result = loop {
            let left = self.deadline.saturating_sub(took());
            if left.is_zero() {
                break Err(ImgwireError::Timeout);
            }
            let limit = left.min(self.timeout);
            let attempt = self.attempt(call, Some(context), limit).await;
            let result = attempt.result;
            is_resent |= attempt.is_resent;
            if matches!(result, Err(ImgwireError::CircuitOpen)) {
                break result;
            }
            attempts += 1;
            let Err(error) = &result else {
                break result;
            };
            // The error of a call that was sent twice says nothing about the other one.
            may_have_acted |= attempt.is_resent || !error.is_definite();
            let body = error.body();
            tracing::warn!(
                request_id = context.request_id.as_str(),
                attempt = attempts,
                %error,
                status = match error { ImgwireError::Refused { status, .. } => Some(status), _ => None },
                error_type = body.and_then(|body| body.error_type.as_deref()),
                detail = body.and_then(|body| body.detail.as_deref()),
                elapsed_ms = took().as_millis() as u64,
                "attempt to {} failed",
                C::PURPOSE
            );
            let Some(delay) = self.retry_delay(error, &mut backoff, took()) else {
                break result;
            };
            tokio::time::sleep(delay).await;
        };
        CallOutcome {
            result,
            attempts,
            took: took(),
            may_have_acted,
            is_repeated: is_resent || attempts > 1,
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

    /// Makes an attempt if the circuit breaker permits it, and records the result there.
    async fn attempt<C: Call>(
        self: &Rc<Self>,
        call: &C,
        context: Option<&TraceContext>,
        timeout: Duration,
    ) -> Attempt<C::Output> {
        let breaker = &self.upstream.breaker;
        let Some(permit) = breaker.permit() else {
            return Attempt {
                result: Err(ImgwireError::CircuitOpen),
                generation: 0,
                is_resent: false,
            };
        };
        let attempt = self.send(call, context, timeout).await;
        if breaker.record(permit, attempt.result.as_ref().err()) {
            self.upstream.metrics.breaker_opened().inc();
            tracing::error!("circuit breaker opened: requests fail until Imgwire recovers");
            let client = self.clone();
            rt::spawn(async move { client.probe_until_recovery().await });
        }
        attempt
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
                let attempt = client.send(&CreateToken, None, client.timeout).await;
                let (result, generation) = (attempt.result, attempt.generation);
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

    /// Sends one request, which may reach Imgwire twice because a repetition does no harm. Records whether Imgwire refused
    /// it.
    async fn send<C: Call>(
        self: &Rc<Self>,
        what: &C,
        context: Option<&TraceContext>,
        timeout: Duration,
    ) -> Attempt<C::Output> {
        let seen = self.upstream.refusals.see();
        let signed = self.signed();
        let sends = Cell::new(0_u32);
        let send = async || {
            sends.set(sends.get() + 1);
            let trace = context.and_then(TraceContext::headers);
            let sending = what.send(&signed, trace);
            read_response(what, sending, &*self.clock, &signed.key.secret).await
        };
        let peer = &self.upstream.peer;
        let response = call(peer, &C::METHOD, Resend::Safe, timeout, send).await;
        let result = match response {
            Ok(response) => response.result,
            Err(error) => Err(error.into()),
        };
        self.upstream.record(seen, &result, C::SPEAKS_FOR_ALL);
        let is_refused = matches!(&result, Err(error) if error.refusal().is_some());
        if is_refused && self.upstream.refusals.current().is_some() {
            self.ask_until_accepted();
        }
        Attempt {
            result,
            generation: signed.key.generation,
            is_resent: sends.get() > 1,
        }
    }

    /// The requests with the API key in force.
    fn signed(&self) -> Rc<SignedRequests> {
        let key = self.upstream.api_key.load();
        let mut signed = self.signed.borrow_mut();
        if !Arc::ptr_eq(&key, &signed.key) {
            *signed = Rc::new(self.requests.sign(&key));
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
                let attempt = client.send(&CreateToken, None, client.timeout).await;
                // Without a pool, the token is not used and expires.
                if let (Ok(token), Some(pool)) = (attempt.result, &upstream.pool) {
                    pool.add(token, attempt.generation);
                }
            }
            // If a refusal began meanwhile, the next refused request starts this again.
            upstream.is_asking.store(false, Ordering::Relaxed);
        });
        rt::spawn(asking);
    }
}
