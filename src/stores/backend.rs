//! What all backends that are reached over connections share: time limits for operations, and background probes.

use std::{pin::pin, sync::Arc, time::Duration};

use actix_web::rt;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures_util::future::LocalBoxFuture;
use tokio::time::timeout;

use super::{fault::StoreFault, health::Health, ports::HealthCheck};

impl<B: Backend> HealthCheck for Arc<B> {
    fn is_healthy(&self) -> bool {
        self.health().is_ready()
    }

    fn start(&self) {
        let backend = self.clone();
        rt::spawn(async move {
            // The result is recorded in its health.
            let _ = backend.probe_and_record(backend.health().timeout()).await;
        });
    }

    fn check(&self) -> LocalBoxFuture<'_, Result<(), StoreFault>> {
        Box::pin(probe_within(self, self.health().timeout()))
    }
}

/// A store, or a node of one, that is reached over a connection.
///
/// An operation that fails is a fault of its request only. A background probe, one at a time and on its own connection,
/// finds out whether the store is down. If the probe fails, the store is down: requests then fail at once, and the gate
/// probes it with growing pauses until a probe succeeds.
pub(super) trait Backend: Sized + Send + Sync + 'static {
    fn health(&self) -> &Health;

    /// Tests on a new connection whether the backend supports its uses.
    fn probe(self: Arc<Self>, within: Duration) -> LocalBoxFuture<'static, Result<(), StoreFault>>;

    async fn probe_and_record(self: &Arc<Self>, within: Duration) -> Result<(), StoreFault> {
        let probed = probe_within(self, within).await;
        match &probed {
            Ok(()) => self.health().mark_up(),
            Err(fault) => self.mark_down(fault),
        }
        probed
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
        let done = self.limit_time(within, operation).await;
        match &done {
            Ok(_) => health.record_success(),
            Err(StoreFault::Refused(_)) => {
                health.record_answer();
                self.probe_after_fault();
            }
            Err(StoreFault::Locked) => health.record_answer(),
            Err(StoreFault::Broken(_) | StoreFault::Unsent) => self.probe_after_fault(),
            Err(StoreFault::Unreachable(_)) => self.probe_in_background(health.timeout()),
            // `limit_time` already started a probe after half of the time.
            Err(StoreFault::Timeout | StoreFault::Down) => {}
        }
        done
    }

    /// Limits an operation in time. If the store does not answer for half of it, a probe starts, so that a hanging
    /// store is known to be down when the first operation times out.
    async fn limit_time<T>(
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
            self.probe_in_background(health.timeout() * 2 / 5);
        }
        let done = timeout(within - half, operation).await;
        done.unwrap_or(Err(StoreFault::Timeout))
    }

    /// Starts a probe after a failed operation, unless a probe succeeded recently.
    fn probe_after_fault(self: &Arc<Self>) {
        let health = self.health();
        if !health.was_probed_recently() {
            self.probe_in_background(health.timeout());
        }
    }

    /// Starts a probe, unless one is running.
    fn probe_in_background(self: &Arc<Self>, within: Duration) {
        if !self.health().begin_probe() {
            return;
        }
        let backend = self.clone();
        rt::spawn(async move {
            let health = backend.health();
            let before = health.answers();
            let probed = probe_within(&backend, within).await;
            health.end_probe(probed.is_ok());
            match probed {
                // The store answered other operations meanwhile, so it does not hang.
                Err(fault) if fault.is_timeout() && health.answers() != before => {
                    tracing::debug!(store = %health.store(), %fault, "probe was slow");
                }
                Err(fault) => backend.mark_down(&fault),
                Ok(()) => {}
            }
        });
    }

    /// Records that it is down, and probes it with growing pauses until it is up.
    fn mark_down(self: &Arc<Self>, reason: &StoreFault) {
        const FIRST_PAUSE: Duration = Duration::from_millis(100);
        const LONGEST_PAUSE: Duration = Duration::from_secs(5);

        if !self.health().mark_down(reason) {
            return;
        }
        let backend = Arc::downgrade(self);
        let recoveries = self.health().recoveries();
        rt::spawn(async move {
            let pauses = ExponentialBuilder::new()
                .with_min_delay(FIRST_PAUSE)
                .with_max_delay(LONGEST_PAUSE)
                .without_max_times()
                .with_jitter();
            for pause in pauses.build() {
                tokio::time::sleep(pause).await;
                // Stops when a reload has replaced the store.
                let Some(backend) = backend.upgrade() else {
                    return;
                };
                let health = backend.health();
                // Another probe found it up. If it has gone down since, that started its own probes.
                if health.recoveries() != recoveries {
                    return;
                }
                match probe_within(&backend, health.timeout()).await {
                    Ok(()) => return health.mark_up(),
                    Err(fault) => {
                        tracing::debug!(store = %health.store(), %fault, "the store is still down");
                    }
                }
            }
        });
    }
}

/// Probes a backend and records nothing.
async fn probe_within<B: Backend>(backend: &Arc<B>, within: Duration) -> Result<(), StoreFault> {
    let probed = timeout(within, backend.clone().probe(within)).await;
    probed.unwrap_or(Err(StoreFault::Timeout))
}
