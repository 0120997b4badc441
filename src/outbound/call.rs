//! One call to another service: its attempts, and which connections they use.

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

use futures_util::future::select_ok;
use policies::Clock;
use tokio::time::timeout;

use super::{budget::RetryBudget, error::HttpError, suppress_awc_tasks::suppress_awc_tasks};

/// What all threads know about a service.
pub(crate) struct Peer {
    /// Incremented when idle connections are no longer trusted. Those of an earlier epoch are dropped.
    epoch: AtomicU64,
    /// Limits the requests that are sent a second time.
    pub(crate) budget: RetryBudget,
}

impl Peer {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            epoch: AtomicU64::new(0),
            budget: RetryBudget::new(clock),
        })
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Drops the idle connections of all threads: if one went silent, the others probably did, too.
    fn drop_idle_connections(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether a request may reach a service twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It only reads, or creates an upload token; a surplus token does no harm.
    Harmless,
    /// It may have side effects.
    Harmful,
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

pub(super) fn note_connection(is_reused: bool) {
    // Outside of a call there is nothing to record.
    let _ = ATTEMPT.try_with(|attempt| attempt.is_reused.set(is_reused));
}

pub(super) fn note_written() {
    let _ = ATTEMPT.try_with(|attempt| attempt.has_written.set(true));
}

/// Makes a call by `attempt`, within `time`.
///
/// A kept connection may have died silently. If one fails, or stays silent for half of the time, the other idle
/// connections to that peer are dropped, and the request is sent again on a fresh one, unless it may have arrived and
/// must not arrive twice. A first attempt that was merely slow continues meanwhile, and counts if it finishes first.
pub(crate) async fn call<T>(
    peer: &Peer,
    repeat: Repeat,
    time: Duration,
    attempt: impl AsyncFn() -> Result<T, HttpError>,
) -> Result<T, HttpError> {
    let first_half = time / 2;
    let second_half = time - first_half;
    let noted = Rc::new(Attempt::default());
    let may_repeat = || repeat == Repeat::Harmless || !noted.has_written.get();
    let mut first = pin!(begin(&attempt, noted.clone()));
    match timeout(first_half, &mut first).await {
        Ok(Err(error @ (HttpError::Unreachable(_) | HttpError::Broken(_))))
            if noted.is_reused.get() =>
        {
            peer.drop_idle_connections();
            if !may_repeat() {
                return Err(error);
            }
            // Boxed, so that calls which need no second attempt do not carry room for it.
            let second = timeout(second_half, Box::pin(begin(&attempt, Rc::default())));
            second.await.unwrap_or(Err(HttpError::Timeout))
        }
        Ok(done) => done,
        Err(_) if noted.is_reused.get() && may_repeat() && peer.budget.withdraw() => {
            peer.drop_idle_connections();
            let mut second = Box::pin(begin(&attempt, Rc::default()));
            let either = select_ok([first, second.as_mut()]);
            let either = timeout(second_half, either).await;
            either.map_or(Err(HttpError::Timeout), |done| {
                done.map(|(response, _)| response)
            })
        }
        Err(_) => {
            let late = timeout(second_half, first).await;
            let late = late.unwrap_or(Err(HttpError::Timeout));
            if noted.is_reused.get() && late.is_err() {
                peer.drop_idle_connections();
            }
            late
        }
    }
}

/// Begins an attempt, which records the state of its connection in `noted`.
fn begin<T, A>(attempt: &A, noted: Rc<Attempt>) -> impl Future<Output = Result<T, HttpError>>
where
    A: AsyncFn() -> Result<T, HttpError>,
{
    ATTEMPT.scope(noted, suppress_awc_tasks(attempt()))
}
