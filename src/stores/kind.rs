//! A kind of store: how its URL is read, what it can be used for, and how it is opened.

use std::{sync::Arc, time::Duration};

use policies::{StoreName, StoreUse};
use secrecy::SecretString;

use super::{Surroundings, fault::OpenError, health::Health, open::Part};
use crate::telemetry::StoreMetrics;

/// What the gate knows of a kind of store. Each kind declares one in its own folder.
pub(super) struct StoreKind {
    /// What messages call it.
    pub(super) name: &'static str,
    /// A URL that messages show.
    pub(super) example: &'static str,
    pub(super) uses: &'static [StoreUse],
    pub(super) takes_password: bool,
    /// Whether all its uses share connections and probes. Otherwise each use is opened by itself, and a reload that
    /// adds or removes one leaves the others open.
    pub(super) is_opened_once: bool,
    /// Reads a URL; `None` if its scheme belongs to another kind. The URL may hold a password, so no message shows it.
    pub(super) parse: fn(&str) -> Option<Parsed>,
}

/// Where a store is, or what is wrong with its URL.
pub(super) type Parsed = Result<Arc<dyn Location>, &'static str>;

/// Where a store is: a URL that its kind has read.
pub(super) trait Location: Send + Sync {
    /// Opens the store for the uses of `opening`. A server that is down is no error: it is probed until it answers.
    fn open(&self, opening: &Opening<'_>) -> Result<Part, OpenError>;
}

/// What a store is opened with.
pub(super) struct Opening<'a> {
    pub(super) name: &'a StoreName,
    pub(super) uses: &'a [StoreUse],
    /// Whether another gate may have it open. Then nothing is written.
    pub(super) only_looks: bool,
    /// How long one operation may take.
    pub(super) timeout: Duration,
    pub(super) password: Option<&'a SecretString>,
    pub(super) surroundings: &'a Surroundings,
}

impl Opening<'_> {
    pub(super) fn is_for(&self, wanted: StoreUse) -> bool {
        self.uses.contains(&wanted)
    }

    pub(super) fn health(&self) -> Health {
        let clock = self.surroundings.clock.clone();
        Health::new(self.name.clone(), self.timeout, clock)
    }

    pub(super) fn metrics(&self) -> StoreMetrics {
        let Surroundings { clock, metrics, .. } = self.surroundings;
        StoreMetrics::new(metrics, self.name, clock)
    }
}
