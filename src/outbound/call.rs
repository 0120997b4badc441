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

use super::{HttpError, budget::RetryBudget, suppress_awc_tasks::suppress_awc_tasks};

/// What all threads know of a service.
pub(crate) struct Peer {
    /// Goes up when idle connections are no longer trusted: those of an earlier epoch are dropped.
    epoch: AtomicU64,
    /// Bounds the requests that are sent a second time.
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

    /// Drops the idle connections of all threads: if one of them went silent, the others most likely did, too.
    fn drop_idle_connections(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether a request may reach a service twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It only reads, or creates an upload token, of which one too many does no harm.
    Harmless,
    /// It may do something.
    Harmful,
}

/// What the connection of a running attempt is like.
#[derive(Debug, Default)]
struct Attempt {
    is_reused: Cell<bool>,
    has_written: Cell<bool>,
}

tokio::task_local! {
    static ATTEMPT: Rc<Attempt>;
}

/// Notes that the running attempt has got a connection.
pub(super) fn note_connection(is_reused: bool) {
    // Outside of a call nobody wants to know.
    let _ = ATTEMPT.try_with(|attempt| attempt.is_reused.set(is_reused));
}

/// Notes that the running attempt has written to its connection.
pub(super) fn note_written() {
    let _ = ATTEMPT.try_with(|attempt| attempt.has_written.set(true));
}

/// Makes a call by `attempt`, within `time`.
///
/// A connection that was kept may have died in silence. If one fails, or says nothing for half of the time, the other
/// idle connections to that peer are dropped, and the request is sent once more on a fresh one, unless it may have
/// arrived and must not arrive twice. A first attempt that was merely slow goes on meanwhile, and counts if it is
/// answered first.
///
/// # Errors
///
/// [`HttpError::Timeout`], or the error of the last attempt.
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
        Ok(Err(error)) if noted.is_reused.get() && error.is_of_the_connection() => {
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

/// Begins an attempt, which says in `noted` what its connection is like.
fn begin<T, A>(attempt: &A, noted: Rc<Attempt>) -> impl Future<Output = Result<T, HttpError>>
where
    A: AsyncFn() -> Result<T, HttpError>,
{
    ATTEMPT.scope(noted, suppress_awc_tasks(attempt()))
}
