//! Whether a store, or a node of one, is up.

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

/// How long after a successful probe a failed operation starts no other one. So operations that the store answers with
/// an error do not cause a probe each.
const RECENT: Duration = Duration::from_secs(1);

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
    recoveries: AtomicU32,
    answers: AtomicU64,
    is_probed: AtomicBool,
    /// When the latest successful probe is no longer recent, in milliseconds of the clock.
    recent_until: AtomicU64,
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
            None => tracing::error!(store = %self.store, %reason, "the store is down"),
            Some(node) => {
                tracing::warn!(store = %self.store, node, %reason, "a node of the store is down");
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
            None => tracing::info!(store = %self.store, "the store is back"),
            Some(node) => tracing::info!(store = %self.store, node, "a node of the store is back"),
        }
    }

    /// Returns whether to probe it now: it is up, and no other probe is running.
    pub(super) fn begin_probe(&self) -> bool {
        self.is_up() && !self.is_probed.swap(true, Ordering::Relaxed)
    }

    pub(super) fn end_probe(&self, succeeded: bool) {
        if succeeded {
            self.record_success();
            let until = millis(self.clock.elapsed() + RECENT);
            self.recent_until.store(until, Ordering::Relaxed);
        }
        self.is_probed.store(false, Ordering::Relaxed);
    }

    /// Whether a recent probe succeeded.
    pub(super) fn was_probed_recently(&self) -> bool {
        millis(self.clock.elapsed()) < self.recent_until.load(Ordering::Relaxed)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
