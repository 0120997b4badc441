//! One call to another service: its attempts, which connections they use, and the retry budget.

use std::{
    cell::Cell,
    future::Future,
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix_web::http::{Method, StatusCode, Uri};
use futures_util::future::select_ok;
use parking_lot::Mutex;
use policies::Clock;
use tokio::time;

use super::{error::HttpError, suppress_awc_tasks::suppress_awc_tasks};
use crate::telemetry::{HttpClientMetrics, Metrics};

/// The retries that a new or idle gate has.
const RESERVED_RETRIES: u32 = 10;

/// The most retries that can accumulate.
const MAX_RETRIES: u32 = 100;

/// How long it takes to regain one of the reserved retries.
const REFILL_INTERVAL: Duration = Duration::from_secs(1);

/// What all threads know about a service.
pub(crate) struct Peer {
    /// Incremented when idle connections are no longer trusted. Connections of an earlier epoch are dropped.
    epoch: AtomicU64,
    pub(crate) budget: RetryBudget,
    metrics: HttpClientMetrics,
}

impl Peer {
    /// The service of `url`.
    pub(crate) fn new(url: &Uri, clock: &Arc<dyn Clock>, metrics: &Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            epoch: AtomicU64::new(0),
            budget: RetryBudget::new(clock.clone()),
            metrics: HttpClientMetrics::new(url, clock, metrics),
        })
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Drops the idle connections of all threads: if one is dead, the others probably are, too.
    fn drop_idle_connections(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }
}

/// Limits retries, so that an outage does not multiply the load. Each request earns one retry, so retries at most double
/// the load of a service.
pub(crate) struct RetryBudget {
    clock: Arc<dyn Clock>,
    balance: Mutex<Balance>,
}

struct Balance {
    retries: u32,
    refilled_at: Duration,
}

impl RetryBudget {
    fn new(clock: Arc<dyn Clock>) -> Self {
        let balance = Balance {
            retries: RESERVED_RETRIES,
            refilled_at: clock.elapsed(),
        };
        Self {
            clock,
            balance: Mutex::new(balance),
        }
    }

    pub(crate) fn deposit(&self) {
        let mut balance = self.balance.lock();
        balance.retries = (balance.retries + 1).min(MAX_RETRIES);
    }

    /// Takes a retry, if one is left.
    #[must_use]
    pub(crate) fn withdraw(&self) -> bool {
        let now = self.clock.elapsed();
        let mut balance = self.balance.lock();
        let idle = now.saturating_sub(balance.refilled_at);
        let refill = u32::try_from(idle.as_secs() / REFILL_INTERVAL.as_secs()).unwrap_or(u32::MAX);
        if refill > 0 {
            let refilled = balance.retries.saturating_add(refill).min(RESERVED_RETRIES);
            balance.retries = balance.retries.max(refilled);
            balance.refilled_at = now;
        }
        let is_left = balance.retries > 0;
        balance.retries = balance.retries.saturating_sub(1);
        is_left
    }
}

/// Whether the gate may send a request a second time, although the service may have received the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resend {
    /// A repetition does no harm: the request only reads or deletes, creates an upload token, of which a surplus one
    /// expires, or has an idempotency key.
    Safe,
    /// The request may have side effects.
    Unsafe,
}

/// A response to a call.
pub(crate) trait Response {
    fn status(&self) -> StatusCode;
}

/// The state of a running attempt's connection.
#[derive(Debug, Default)]
struct Attempt {
    is_reused: Cell<bool>,
    has_written: Cell<bool>,
}

tokio::task_local! {
    static ATTEMPT: Rc<Attempt>;
}

pub(super) fn record_connection(is_reused: bool) {
    // There is nothing to record outside of a call.
    let _ = ATTEMPT.try_with(|attempt| attempt.is_reused.set(is_reused));
}

pub(super) fn record_write() {
    let _ = ATTEMPT.try_with(|attempt| attempt.has_written.set(true));
}

/// Calls a service with `send`, within `timeout`, and measures each attempt.
///
/// A reused connection may have died silently. If it fails, or is silent for half of the timeout, the gate drops the
/// other idle connections to that service and sends the request again on a new one, unless the service may have received
/// it and `resend` forbids a repetition. A first attempt that was only slow continues, and the first response counts.
pub(crate) async fn call<T: Response>(
    peer: &Peer,
    method: &Method,
    resend: Resend,
    timeout: Duration,
    send: impl AsyncFn() -> Result<T, HttpError>,
) -> Result<T, HttpError> {
    let first_half = timeout / 2;
    let second_half = timeout - first_half;
    // Why an attempt is dropped before its end: the other one was faster, or nothing needs the response any more.
    let abandoned = Cell::new("cancelled");
    let timed_out = || {
        abandoned.set("timeout");
        Err(HttpError::Timeout)
    };
    let send = async || {
        let attempt = peer.metrics.start(method, &abandoned);
        let result = send().await;
        attempt.end(result.as_ref().map(T::status).map_err(HttpError::name));
        result
    };
    let state = Rc::new(Attempt::default());
    let may_resend = || resend == Resend::Safe || !state.has_written.get();
    let mut first = pin!(start_attempt(&send, state.clone()));
    match time::timeout(first_half, &mut first).await {
        Ok(Err(error @ (HttpError::Unreachable(_) | HttpError::Broken(_))))
            if state.is_reused.get() =>
        {
            peer.drop_idle_connections();
            if !may_resend() {
                return Err(error);
            }
            // Boxed, so that calls without a second attempt do not carry its state.
            let mut second = Box::pin(start_attempt(&send, Rc::default()));
            let result = time::timeout(second_half, &mut second).await;
            result.unwrap_or_else(|_| timed_out())
        }
        Ok(result) => result,
        Err(_) if state.is_reused.get() && may_resend() && peer.budget.withdraw() => {
            peer.drop_idle_connections();
            let mut second = Box::pin(start_attempt(&send, Rc::default()));
            let either = select_ok([first, second.as_mut()]);
            match time::timeout(second_half, either).await {
                Ok(result) => result.map(|(response, _)| response),
                Err(_) => timed_out(),
            }
        }
        Err(_) => {
            let result = time::timeout(second_half, &mut first).await;
            let result = result.unwrap_or_else(|_| timed_out());
            if state.is_reused.get() && result.is_err() {
                peer.drop_idle_connections();
            }
            result
        }
    }
}

/// Starts an attempt, which records what happens to its connection in `state`.
fn start_attempt<T, S>(send: &S, state: Rc<Attempt>) -> impl Future<Output = Result<T, HttpError>>
where
    S: AsyncFn() -> Result<T, HttpError>,
{
    ATTEMPT.scope(state, suppress_awc_tasks(send()))
}
