//! What all backends that are reached over connections share: time limits for operations, and background probes.

use std::{cell::RefCell, pin::pin, sync::Arc, time::Duration};

use actix_web::rt;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures_util::{TryFutureExt as _, future::LocalBoxFuture};
use tokio::time::timeout;

use super::{
    fault::{StoreFault, Unreachable},
    health::Health,
    kept::{self, Kept},
};

pub(super) trait Probe: Send + Sync {
    fn is_healthy(&self) -> bool;

    /// Probes in the background, if opening the store did not show whether it works.
    fn begin(&self) {}

    /// Tests whether it can be used; the error says why not.
    fn try_it(&self) -> LocalBoxFuture<'_, Result<(), String>>;
}

impl<B: Backend> Probe for Arc<B> {
    fn is_healthy(&self) -> bool {
        self.health().is_ready()
    }

    fn begin(&self) {
        Backend::begin(self);
    }

    fn try_it(&self) -> LocalBoxFuture<'_, Result<(), String>> {
        let probed = probe_in_time(self, self.health().timeout());
        Box::pin(probed.map_err(|fault| fault.to_string()))
    }
}

/// A store, or a node of one, that is reached over a connection.
///
/// An operation that fails is a fault of its request only. A background probe, one at a time and on its own connection,
/// finds out whether the store is down. Only if the probe fails, the store is down: requests then fail at once, and
/// probes follow with growing pauses until one succeeds.
pub(super) trait Backend: Sized + Send + Sync + 'static {
    fn health(&self) -> &Health;

    /// Tests on a fresh connection whether it does what it is needed for.
    fn probe(self: Arc<Self>, within: Duration) -> LocalBoxFuture<'static, Result<(), StoreFault>>;

    /// Probes in the background, so that its state is known before the first request.
    fn begin(self: &Arc<Self>) {
        let backend = self.clone();
        rt::spawn(async move {
            // The result is recorded in its health.
            let _ = backend.try_out(backend.health().timeout()).await;
        });
    }

    /// Probes, and records the result.
    async fn try_out(self: &Arc<Self>, within: Duration) -> Result<(), StoreFault> {
        let tried = probe_in_time(self, within).await;
        match &tried {
            Ok(()) => self.health().comes_back(),
            Err(fault) => self.is_down(fault),
        }
        tried
    }

    /// Runs one operation within its time limit.
    async fn run<T>(
        self: &Arc<Self>,
        within: Duration,
        operation: impl Future<Output = Result<T, StoreFault>>,
    ) -> Result<T, StoreFault> {
        let health = self.health();
        if !health.is_up() {
            return Err(StoreFault::Down);
        }
        let done = self.in_time(within, operation).await;
        match &done {
            Ok(_) => health.works(),
            Err(StoreFault::Refused(_)) => {
                health.answered();
                self.is_suspect();
            }
            Err(StoreFault::Locked) => health.answered(),
            Err(StoreFault::Broken(_) | StoreFault::Unsent) => self.is_suspect(),
            Err(StoreFault::Unreachable(_)) => self.probe_aside(health.timeout()),
            // `in_time` already probed at half of the time.
            Err(StoreFault::Timeout | StoreFault::Down) => {}
        }
        done
    }

    /// Like [`run`](Self::run), on this thread's connection, which all its operations share and `connect` opens if
    /// needed. If it breaks, the operation is repeated once if nothing of it was sent, or if it `only_reads`.
    async fn run_on_kept<C: Clone + 'static, T>(
        self: &Arc<Self>,
        within: Duration,
        only_reads: bool,
        connect: impl Fn() -> LocalBoxFuture<'static, Result<C, Unreachable>>,
        operation: impl AsyncFn(C) -> Result<T, StoreFault>,
    ) -> Result<T, StoreFault> {
        let health = self.health();
        let used: RefCell<Option<Kept<C>>> = RefCell::default();
        let attempt = async || {
            let kept = kept::connection(health, &connect);
            used.replace(Some(kept.clone()));
            operation(kept.await?).await
        };
        let attempts = async {
            match attempt().await {
                Err(StoreFault::Unsent) => {}
                Err(StoreFault::Broken(_)) if only_reads => {}
                done => return done,
            }
            if let Some(kept) = used.take() {
                kept::forget(health, &kept);
            }
            attempt().await
        };
        let done = self.run(within, attempts).await;
        // After anything but an answer, the connection is no longer trusted.
        if !matches!(
            done,
            Ok(_) | Err(StoreFault::Refused(_) | StoreFault::Locked)
        ) && let Some(kept) = used.take()
        {
            kept::forget(health, &kept);
        }
        done
    }

    /// Limits an operation in time. If the store is silent for half of it, the store is probed, so that a hanging store
    /// is known to be down when the first operation gives up.
    async fn in_time<T>(
        self: &Arc<Self>,
        within: Duration,
        operation: impl Future<Output = Result<T, StoreFault>>,
    ) -> Result<T, StoreFault> {
        let health = self.health();
        let (before, half) = (health.answers(), within / 2);
        let mut operation = pin!(operation);
        if let Ok(done) = timeout(half, &mut operation).await {
            return done;
        }
        if health.answers() == before {
            // Shorter than the other half.
            self.probe_aside(health.timeout() * 2 / 5);
        }
        let done = timeout(within - half, operation).await;
        done.unwrap_or(Err(StoreFault::Timeout))
    }

    /// Starts a probe after a failed operation, unless one succeeded recently.
    fn is_suspect(self: &Arc<Self>) {
        let health = self.health();
        if !health.is_vouched_for() {
            self.probe_aside(health.timeout());
        }
    }

    /// Probes in the background, unless a probe is running.
    fn probe_aside(self: &Arc<Self>, within: Duration) {
        if !self.health().begin_probe() {
            return;
        }
        let backend = self.clone();
        rt::spawn(async move {
            let health = backend.health();
            let before = health.answers();
            let probed = probe_in_time(&backend, within).await;
            health.end_probe(probed.is_ok());
            match probed {
                // Others were answered meanwhile, so the store does not hang.
                Err(fault) if fault.is_silence() && health.answers() != before => {
                    tracing::debug!(store = %health.store(), %fault, "a probe was slow");
                }
                Err(fault) => backend.is_down(&fault),
                Ok(()) => {}
            }
        });
    }

    /// Records that it is down, and probes it with growing pauses until it is up.
    fn is_down(self: &Arc<Self>, reason: &StoreFault) {
        const FIRST_WAIT: Duration = Duration::from_millis(100);
        const LONGEST_WAIT: Duration = Duration::from_secs(5);

        if !self.health().goes_down(reason) {
            return;
        }
        let backend = Arc::downgrade(self);
        let returns = self.health().returns();
        rt::spawn(async move {
            let waits = ExponentialBuilder::new()
                .with_min_delay(FIRST_WAIT)
                .with_max_delay(LONGEST_WAIT)
                .without_max_times()
                .with_jitter();
            for wait in waits.build() {
                tokio::time::sleep(wait).await;
                // Stops when a reload has replaced the store.
                let Some(backend) = backend.upgrade() else {
                    return;
                };
                let health = backend.health();
                // Another probe found it up. If it has gone down since, that started its own probes.
                if health.returns() != returns {
                    return;
                }
                match probe_in_time(&backend, health.timeout()).await {
                    Ok(()) => return health.comes_back(),
                    Err(fault) => {
                        tracing::debug!(store = %health.store(), %fault, "the store is still down");
                    }
                }
            }
        });
    }
}

/// Probes a backend and records nothing.
async fn probe_in_time<B: Backend>(backend: &Arc<B>, within: Duration) -> Result<(), StoreFault> {
    let probed = timeout(within, backend.clone().probe(within)).await;
    probed.unwrap_or(Err(StoreFault::Timeout))
}
