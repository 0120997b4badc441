//! Whether a backend can be asked, and the connections to it.

use std::{
    any::Any,
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use actix_web::rt;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures_util::future::{FutureExt as _, LocalBoxFuture, Shared};
use policies::StoreName;

/// A connection that is open, or being opened.
type Opening<T, E> = Shared<LocalBoxFuture<'static, Result<T, E>>>;

/// A connection that a thread keeps.
struct Kept {
    /// Whose it is.
    of: Weak<Health>,
    /// How often that had come back when it was made.
    made: u32,
    /// An [`Opening`].
    opening: Box<dyn Any>,
}

thread_local! {
    /// The connections of this thread.
    static OPEN: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
}

/// Asks a backend whether it does what it is needed for; says why not.
pub(super) type Probe = Rc<dyn Fn() -> LocalBoxFuture<'static, Result<(), String>>>;

/// The state of a backend: one that is down costs a request no wait, for it is probed beside the requests.
pub(super) struct Health {
    /// What it is called in the log.
    name: StoreName,
    is_up: AtomicBool,
    was_reached: AtomicBool,
    /// How often it has come back.
    returns: AtomicU32,
}

impl Health {
    pub(super) fn new(name: StoreName) -> Arc<Self> {
        Arc::new(Self {
            name,
            is_up: AtomicBool::new(true),
            was_reached: AtomicBool::new(false),
            returns: AtomicU32::new(0),
        })
    }

    /// Whether it may be asked: nobody knows that it is down.
    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// Whether it is known to answer.
    pub(super) fn is_ready(&self) -> bool {
        self.is_up() && self.was_reached.load(Ordering::Relaxed)
    }

    /// This thread's connection, which all its requests share; opened by `connect` if need be, and anew after the
    /// backend was down; and whether it was kept from before. One type of connection a backend.
    ///
    /// # Errors
    ///
    /// Those of `connect`; whoever meets one is to [forget](Self::forget) the connection.
    pub(super) async fn connection<T, E>(
        self: &Arc<Self>,
        connect: impl FnOnce() -> LocalBoxFuture<'static, Result<T, E>>,
    ) -> Result<(T, bool), E>
    where
        T: Clone + 'static,
        E: Clone + 'static,
    {
        let returns = self.returns.load(Ordering::Relaxed);
        let opening = OPEN.with_borrow_mut(|open| {
            let is_own =
                |kept: &&Kept| kept.of.as_ptr() == Arc::as_ptr(self) && kept.made == returns;
            let kept = open.iter().find(is_own);
            let kept = kept.and_then(|kept| kept.opening.downcast_ref::<Opening<T, E>>());
            if let Some(opening) = kept {
                return opening.clone();
            }
            open.retain(|kept| kept.of.strong_count() > 0 && kept.of.as_ptr() != Arc::as_ptr(self));
            let opening = connect().shared();
            open.push(Kept {
                of: Arc::downgrade(self),
                made: returns,
                opening: Box::new(opening.clone()),
            });
            opening
        });
        let was_kept = opening.peek().is_some();
        Ok((opening.await?, was_kept))
    }

    /// Gives this thread's connection up.
    pub(super) fn forget(&self) {
        OPEN.with_borrow_mut(|open| {
            open.retain(|kept| !std::ptr::eq(kept.of.as_ptr(), self));
        });
    }

    /// Probes it for the first time, so that it is known whether it answers before anybody asks.
    pub(super) fn begin(self: &Arc<Self>, probe: Probe) {
        let health = self.clone();
        rt::spawn(async move {
            match probe().await {
                Ok(()) => health.was_reached.store(true, Ordering::Relaxed),
                Err(reason) => health.is_down(&reason, probe),
            }
        });
    }

    /// Notes that it has answered, whatever it said: that is as good as a probe.
    pub(super) fn answered(&self) {
        if !self.was_reached.load(Ordering::Relaxed) {
            self.was_reached.store(true, Ordering::Relaxed);
        }
    }

    /// Notes that it is down, and has it probed beside the requests, ever less often, until it is up.
    pub(super) fn is_down(self: &Arc<Self>, reason: &str, probe: Probe) {
        const FIRST_WAIT: Duration = Duration::from_millis(100);
        const LONGEST_WAIT: Duration = Duration::from_secs(5);

        if !self.is_up.swap(false, Ordering::Relaxed) {
            // Somebody does.
            return;
        }
        tracing::error!(store = %self.name, reason, "the store is down");
        let health = Arc::downgrade(self);
        rt::spawn(async move {
            let waits = ExponentialBuilder::new()
                .with_min_delay(FIRST_WAIT)
                .with_max_delay(LONGEST_WAIT)
                .without_max_times()
                .with_jitter();
            for wait in waits.build() {
                tokio::time::sleep(wait).await;
                // The backend was replaced meanwhile.
                if health.strong_count() == 0 {
                    return;
                }
                match probe().await {
                    Ok(()) => break,
                    Err(reason) => tracing::debug!(reason, "the store is still down"),
                }
            }
            if let Some(health) = health.upgrade() {
                health.returns.fetch_add(1, Ordering::Relaxed);
                health.was_reached.store(true, Ordering::Relaxed);
                health.is_up.store(true, Ordering::Relaxed);
                tracing::info!(store = %health.name, "the store is back");
            }
        });
    }
}
