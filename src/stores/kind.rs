//! A kind of store: how to parse its URL, what it supports, and how to open it.

use std::{sync::Arc, time::Duration};

use policies::{Clock, StoreName, StoreUse};
use rustls::ClientConfig;
use secrecy::SecretString;

use super::{fault::OpenError, health::Health, ports::OpenPorts};
use crate::telemetry::{Metrics, StoreMetrics};

/// Each kind declares one in its own folder.
pub(super) struct StoreKind {
    /// For messages.
    pub(super) name: &'static str,
    /// A URL for messages.
    pub(super) example: &'static str,
    pub(super) uses: &'static [StoreUse],
    /// The rights that the gate needs, as an instruction.
    pub(super) rights: &'static str,
    pub(super) takes_password: bool,
    /// Whether all uses share connections and probes. Otherwise each use is opened separately, and a reload that adds
    /// or removes one leaves the others open.
    pub(super) is_opened_once: bool,
    /// `None` if the scheme belongs to another kind. The URL may contain a password, so no message shows it.
    pub(super) parse: fn(&str) -> Option<Parsed>,
}

/// A location, or what is wrong with the URL.
pub(super) type Parsed = Result<Arc<dyn Location>, &'static str>;

/// A parsed URL.
pub(super) trait Location: Send + Sync {
    /// Opens the store for the uses in `options`. A server that is down is not an error: it is probed until it answers.
    fn open(&self, options: &OpenOptions<'_>) -> Result<OpenPorts, OpenError>;
}

/// What all stores use.
pub struct StoreContext {
    pub tls: Arc<ClientConfig>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
}

pub(super) struct OpenOptions<'a> {
    pub(super) name: &'a StoreName,
    pub(super) uses: &'a [StoreUse],
    pub(super) read_only: bool,
    /// For one operation.
    pub(super) timeout: Duration,
    pub(super) password: Option<&'a SecretString>,
    pub(super) context: &'a StoreContext,
}

impl OpenOptions<'_> {
    pub(super) fn is_for(&self, wanted: StoreUse) -> bool {
        self.uses.contains(&wanted)
    }

    pub(super) fn health(&self) -> Health {
        let clock = self.context.clock.clone();
        Health::new(self.name.clone(), self.timeout, clock)
    }

    pub(super) fn metrics(&self, system: &'static str) -> StoreMetrics {
        let StoreContext { clock, metrics, .. } = self.context;
        StoreMetrics::new(metrics, self.name, system, clock)
    }
}
