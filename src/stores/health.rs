//! Whether a store, or a node of one, can be asked.

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

/// For how long a probe that went well vouches for a store whose operations are answered with errors: such an
/// operation is the fault of its request, and does not have the store probed all the time.
const VOUCHED: Duration = Duration::from_secs(1);

/// The state of a store. It is down if a probe fails; an operation that is slow or fails only has it probed.
pub(super) struct Health {
    store: StoreName,
    /// The node of a cluster that this is about.
    node: Option<String>,
    /// How long one operation may take.
    timeout: Duration,
    clock: Arc<dyn Clock>,
    is_up: AtomicBool,
    was_reached: AtomicBool,
    /// How often it has come back.
    returns: AtomicU32,
    /// How many answers have come, to tell one slow operation from a store that says nothing at all.
    answers: AtomicU64,
    is_probed: AtomicBool,
    /// In milliseconds of the clock.
    vouched_until: AtomicU64,
    /// What connections that threads keep refer to.
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

    /// The same for one node of the store.
    pub(super) fn of_node(self, node: String) -> Self {
        Self {
            node: Some(node),
            ..self
        }
    }

    pub(super) fn store(&self) -> &StoreName {
        &self.store
    }

    /// The fault of a policy whose operation has no result.
    pub(super) fn fault(&self, source: StoreFault) -> Fault {
        Fault::Store {
            store: self.store.clone(),
            source: Box::new(source),
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether it may be asked, because it is not known to be down.
    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// Whether it is known to work.
    pub(super) fn is_ready(&self) -> bool {
        self.is_up() && self.was_reached.load(Ordering::Relaxed)
    }

    /// How often it has come back: connections that are older are not used again.
    pub(super) fn returns(&self) -> u32 {
        self.returns.load(Ordering::Relaxed)
    }

    pub(super) fn identity(&self) -> &Arc<()> {
        &self.identity
    }

    /// How many answers have come.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Notes that an answer came, whatever it says.
    pub(super) fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that an operation or a probe went well.
    pub(super) fn works(&self) {
        self.answered();
        if !self.was_reached.load(Ordering::Relaxed) {
            self.was_reached.store(true, Ordering::Relaxed);
        }
    }

    /// Notes that it cannot be used. Returns whether that is news.
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

    /// Notes that it can be used, or used again.
    pub(super) fn comes_back(&self) {
        self.works();
        if self.is_up() {
            return;
        }
        // Before it is up: no connection from before is used then.
        self.returns.fetch_add(1, Ordering::Relaxed);
        if self.is_up.swap(true, Ordering::Relaxed) {
            return;
        }
        match &self.node {
            None => tracing::info!(store = %self.store, "the store is back"),
            Some(node) => tracing::info!(store = %self.store, node, "a node of the store is back"),
        }
    }

    /// Begins a probe, unless one runs.
    pub(super) fn begin_probe(&self) -> bool {
        self.is_up() && !self.is_probed.swap(true, Ordering::Relaxed)
    }

    /// Ends a probe. One that went well vouches for the store for a while.
    pub(super) fn end_probe(&self, went_well: bool) {
        if went_well {
            self.works();
            let until = millis(self.clock.elapsed() + VOUCHED);
            self.vouched_until.store(until, Ordering::Relaxed);
        }
        self.is_probed.store(false, Ordering::Relaxed);
    }

    /// Whether a probe went well lately.
    pub(super) fn is_vouched_for(&self) -> bool {
        millis(self.clock.elapsed()) < self.vouched_until.load(Ordering::Relaxed)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
