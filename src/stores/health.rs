//! The state of a store, or of a node of one.

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use policies::{Clock, Fault, StoreName};

use super::fault::StoreFault;

/// How long a successful probe vouches for a store that answers operations with errors. Such an operation is the fault
/// of its request, and must not cause a probe each time.
const VOUCHED: Duration = Duration::from_secs(1);

/// A store is down if a probe fails. An operation that is slow or fails only triggers a probe.
pub(super) struct Health {
    store: StoreName,
    /// In a cluster.
    node: Option<String>,
    /// For one operation.
    timeout: Duration,
    clock: Arc<dyn Clock>,
    is_up: AtomicBool,
    was_reached: AtomicBool,
    /// How often it has come back up.
    returns: AtomicU32,
    /// How many answers have come, to distinguish one slow operation from a silent store.
    answers: AtomicU64,
    is_probed: AtomicBool,
    /// In milliseconds of the clock.
    vouched_until: AtomicU64,
    /// Connections that threads keep refer to it.
    identity: Arc<()>,
}

impl Health {
    pub(super) fn new(store: StoreName, timeout: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            node: None,
            timeout,
            clock,
            is_up: AtomicBool::new(true),
            was_reached: AtomicBool::new(false),
            returns: AtomicU32::new(0),
            answers: AtomicU64::new(0),
            is_probed: AtomicBool::new(false),
            vouched_until: AtomicU64::new(0),
            identity: Arc::default(),
        }
    }

    pub(super) fn of_node(self, node: String) -> Self {
        Self {
            node: Some(node),
            ..self
        }
    }

    pub(super) fn store(&self) -> &StoreName {
        &self.store
    }

    pub(super) fn fault(&self, source: StoreFault) -> Fault {
        Fault::Store {
            store: self.store.clone(),
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

    /// How often it has come back up. Older connections are not used again.
    pub(super) fn returns(&self) -> u32 {
        self.returns.load(Ordering::Relaxed)
    }

    pub(super) fn identity(&self) -> &Arc<()> {
        &self.identity
    }

    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    pub(super) fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that an operation or a probe succeeded.
    pub(super) fn works(&self) {
        self.answered();
        if !self.was_reached.load(Ordering::Relaxed) {
            self.was_reached.store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether it was up before.
    pub(super) fn goes_down(&self, reason: &dyn Display) -> bool {
        let is_news = self.is_up.swap(false, Ordering::Relaxed);
        match &self.node {
            _ if !is_news => {}
            None => tracing::error!(store = %self.store, %reason, "the store is down"),
            Some(node) => {
                tracing::warn!(store = %self.store, node, %reason, "a node of the store is down");
            }
        }
        is_news
    }

    pub(super) fn comes_back(&self) {
        self.works();
        if self.is_up() {
            return;
        }
        // Increment before it is up, so that no older connection is used.
        self.returns.fetch_add(1, Ordering::Relaxed);
        if self.is_up.swap(true, Ordering::Relaxed) {
            return;
        }
        match &self.node {
            None => tracing::info!(store = %self.store, "the store is back"),
            Some(node) => tracing::info!(store = %self.store, node, "a node of the store is back"),
        }
    }

    /// Begins a probe, unless one is running.
    pub(super) fn begin_probe(&self) -> bool {
        self.is_up() && !self.is_probed.swap(true, Ordering::Relaxed)
    }

    /// A successful probe vouches for the store for a while.
    pub(super) fn end_probe(&self, went_well: bool) {
        if went_well {
            self.works();
            let until = millis(self.clock.elapsed() + VOUCHED);
            self.vouched_until.store(until, Ordering::Relaxed);
        }
        self.is_probed.store(false, Ordering::Relaxed);
    }

    /// Whether a recent probe succeeded.
    pub(super) fn is_vouched_for(&self) -> bool {
        millis(self.clock.elapsed()) < self.vouched_until.load(Ordering::Relaxed)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
