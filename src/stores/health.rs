//! Whether a store, or a node of one, is up: time limits for operations, and background probes.

use std::{
    fmt::Display,
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use actix_web::rt;
use arc_swap::ArcSwap;
use futures_util::{StreamExt as _, future::LocalBoxFuture, stream::FuturesUnordered};
use policies::{Clock, Fault, StoreName};
use tokio::time::timeout;

use super::{fault::StoreFault, remark::Remark};

/// How long after a successful probe a failed operation starts no other one. So operations that the store answers with
/// an error do not cause a probe each.
const RECENT: Duration = Duration::from_secs(1);

/// A store is down if a probe fails. An operation that is slow or fails only triggers a probe.
pub(super) struct Health {
    /// A reload may rename it.
    store: ArcSwap<StoreName>,
    /// In a cluster.
    node: Option<String>,
    /// For one operation.
    timeout: Duration,
    clock: Arc<dyn Clock>,
    is_up: AtomicBool,
    was_reached: AtomicBool,
    recoveries: AtomicU32,
    answers: AtomicU64,
    is_probed: AtomicBool,
    /// When the latest successful probe is no longer recent, in milliseconds of the clock.
    recent_until: AtomicU64,
}

impl Health {
    pub(super) fn new(store: StoreName, timeout: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            store: ArcSwap::from_pointee(store),
            node: None,
            timeout,
            clock,
            is_up: AtomicBool::new(true),
            was_reached: AtomicBool::new(false),
            recoveries: AtomicU32::new(0),
            answers: AtomicU64::new(0),
            is_probed: AtomicBool::new(false),
            recent_until: AtomicU64::new(0),
        }
    }

    pub(super) fn of_node(self, node: String) -> Self {
        Self {
            node: Some(node),
            ..self
        }
    }

    pub(super) fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    pub(super) fn store(&self) -> StoreName {
        StoreName::clone(&self.store.load())
    }

    pub(super) fn rename(&self, store: &StoreName) {
        self.store.store(Arc::new(store.clone()));
    }

    pub(super) fn fault(&self, source: StoreFault) -> Fault {
        Fault::Store {
            store: self.store(),
            source: Box::new(source),
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.is_up() && self.was_reached.load(Ordering::Relaxed)
    }

    /// How often it has come back up. Connections from before the latest recovery are not used again.
    pub(super) fn recoveries(&self) -> u32 {
        self.recoveries.load(Ordering::Relaxed)
    }

    /// How many answers have come. Distinguishes one slow operation from a store that hangs.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    pub(super) fn record_answer(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn record_success(&self) {
        self.record_answer();
        if !self.was_reached.load(Ordering::Relaxed) {
            self.was_reached.store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether it was up before.
    pub(super) fn mark_down(&self, reason: &dyn Display) -> bool {
        let was_up = self.is_up.swap(false, Ordering::Relaxed);
        match &self.node {
            _ if !was_up => {}
            None => tracing::error!(store = %self.store(), %reason, "the store is down"),
            Some(node) => {
                tracing::warn!(store = %self.store(), node, %reason, "a node of the store is down");
            }
        }
        was_up
    }

    pub(super) fn mark_up(&self) {
        self.record_success();
        if self.is_up() {
            return;
        }
        // Increment before it is up, so that no older connection is used.
        self.recoveries.fetch_add(1, Ordering::Relaxed);
        if self.is_up.swap(true, Ordering::Relaxed) {
            return;
        }
        match &self.node {
            None => tracing::info!(store = %self.store(), "the store is back"),
            Some(node) => {
                tracing::info!(store = %self.store(), node, "a node of the store is back")
            }
        }
    }

    /// Returns whether to probe it now: it is up, and no other probe is running.
    fn begin_probe(&self) -> bool {
        self.is_up() && !self.is_probed.swap(true, Ordering::Relaxed)
    }

    fn end_probe(&self, succeeded: bool) {
        if succeeded {
            self.record_success();
            let until = millis(self.clock.elapsed() + RECENT);
            self.recent_until.store(until, Ordering::Relaxed);
        }
        self.is_probed.store(false, Ordering::Relaxed);
    }

    fn was_probed_recently(&self) -> bool {
        millis(self.clock.elapsed()) < self.recent_until.load(Ordering::Relaxed)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) trait HealthCheck: Send + Sync {
    fn is_healthy(&self) -> bool;

    /// Starts a first probe in the background, unless opening the store already showed whether it works.
    fn start(&self) {}

    /// Changes the name of the store, if a store of another name can stay open.
    fn rename(&self, store: &StoreName) {
        let _ = store;
    }

    /// Whether a reload opens the store again, because what is open is no longer what its URL names.
    fn must_reopen(&self) -> bool {
        false
    }

    /// Tests whether the store works.
    fn check(&self) -> LocalBoxFuture<'_, Result<(), StoreFault>>;

    /// What the operator should know of the store although it works.
    fn remarks(&self) -> Vec<Remark> {
        Vec::new()
    }
}

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
        self.watch();
    }

    fn check(&self) -> LocalBoxFuture<'_, Result<(), StoreFault>> {
        Box::pin(probe_within(self, self.health().timeout()))
    }

    fn remarks(&self) -> Vec<Remark> {
        Backend::remarks(&**self)
    }
}

/// A store, or a node of one, that is reached over a connection.
///
/// An operation that fails is a fault of its request only. A background probe, one at a time and on its own connection,
/// finds out whether the store is down. If the probe fails, the store is down: requests then fail at once, and the gate
/// probes it until a probe succeeds.
pub(super) trait Backend: Sized + Send + Sync + 'static {
    fn health(&self) -> &Health;

    /// Tests on a new connection whether the backend supports its uses.
    async fn probe(self: &Arc<Self>, within: Duration) -> Result<(), StoreFault>;

    /// Starts what the backend does in the background while it is open.
    fn watch(self: &Arc<Self>) {}

    /// See [`HealthCheck::remarks`].
    fn remarks(&self) -> Vec<Remark> {
        Vec::new()
    }

    async fn probe_and_record(self: &Arc<Self>, within: Duration) -> Result<(), StoreFault> {
        let probed = probe_within(self, within).await;
        match &probed {
            Ok(()) => self.health().mark_up(),
            Err(fault) => self.mark_down(fault),
        }
        probed
    }

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
            Err(StoreFault::Unreachable(_) | StoreFault::File(_)) => {
                self.probe_in_background(health.timeout())
            }
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

    /// Records that it is down, and probes it until it is up.
    fn mark_down(self: &Arc<Self>, reason: &StoreFault) {
        if self.health().mark_down(reason) {
            let recoveries = self.health().recoveries();
            rt::spawn(probe_until_up(Arc::downgrade(self), recoveries));
        }
    }
}

/// The pauses between probes of a store that is down, in milliseconds. The last one repeats, so that a store that comes back
/// is used within a second.
const PAUSES: [u64; 3] = [100, 200, 400];

/// A probe in whose time the next ones start. One at a time has the whole time of the store, for a store that is slow. So at
/// most seven run at once, however long the store may take.
const QUICK: Duration = Duration::from_millis(1600);

/// A probe that gets no answer does not delay the next one, because the peer may never answer on that connection.
async fn probe_until_up<B: Backend>(backend: Weak<B>, recoveries: u32) {
    let mut pauses = PAUSES.into_iter();
    let mut pause = 0;
    let mut has_patient = false;
    let mut probes = FuturesUnordered::new();
    loop {
        pause = pauses.next().unwrap_or(pause);
        // Gates that lost the store together do not probe it together.
        let pause = fastrand::u64(pause * 3 / 4..=pause);
        let mut pausing = pin!(tokio::time::sleep(Duration::from_millis(pause)));
        loop {
            let (is_patient, backend, probed): (bool, Arc<B>, _) = tokio::select! {
                () = &mut pausing => break,
                Some(done) = probes.next() => done,
            };
            has_patient &= !is_patient;
            let health = backend.health();
            match probed {
                Ok(()) => return health.mark_up(),
                Err(fault) => {
                    tracing::debug!(store = %health.store(), %fault, "the store is still down");
                }
            }
        }
        // Stops when a reload has replaced the store.
        let Some(backend) = backend.upgrade() else {
            return;
        };
        let health = backend.health();
        // Another probe found it up. If it has gone down since, that started its own probes.
        if health.recoveries() != recoveries {
            return;
        }
        let is_patient = !has_patient;
        has_patient = true;
        let within = match is_patient {
            true => health.timeout(),
            false => health.timeout().min(QUICK),
        };
        probes.push(async move {
            let probed = probe_within(&backend, within).await;
            (is_patient, backend, probed)
        });
    }
}

async fn probe_within<B: Backend>(backend: &Arc<B>, within: Duration) -> Result<(), StoreFault> {
    let probed = timeout(within, backend.probe(within)).await;
    probed.unwrap_or(Err(StoreFault::Timeout))
}
