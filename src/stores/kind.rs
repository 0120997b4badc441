//! A kind of store: how to parse its URL, what it supports, and which ports it opens.

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::future::LocalBoxFuture;
use jiff::Timestamp;
use policies::{Clock, QuotaStore, RateLimitStore, StoreName, StoreUse, WorkspaceId};
use rustls::ClientConfig;
use secrecy::SecretString;

use super::{
    fault::{OpenError, StoreFault},
    health::{Health, HealthCheck},
    records::RecordStore,
    tls::TlsSettings,
};
use crate::{
    outbound::{TlsMaterial, Verification},
    telemetry::{Metrics, StoreMetrics},
};

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
    /// Whether its keys have a prefix.
    pub(super) takes_prefix: bool,
    /// Whether all uses share connections and probes. Otherwise each use is opened separately, and a reload that adds
    /// or removes one leaves the others open.
    pub(super) is_opened_once: bool,
    /// `None` if the scheme belongs to another kind. The URL may contain a password, so no message shows it.
    pub(super) parse: fn(&str) -> Option<Parsed>,
}

/// A location, or what is wrong with the URL.
type Parsed = Result<Arc<dyn Location>, String>;

pub(super) trait Location: Send + Sync {
    /// Whether Sentinels know the server.
    fn has_sentinels(&self) -> bool {
        false
    }

    /// Whether the URL contains a password.
    fn has_password(&self) -> bool {
        false
    }

    /// The certificates that the URL names. Fails with the reason if connections do not use TLS.
    fn tls(&self) -> Result<TlsSettings, String> {
        Err("is only for servers".to_owned())
    }

    /// Whether TLS works with these certificates.
    fn check_tls(&self, _: &TlsMaterial) -> Result<(), String> {
        Ok(())
    }

    /// The file that the store is. Only one process can count in a file.
    fn file(&self) -> Option<&Path> {
        None
    }

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
    pub(super) sentinel: Option<&'a SentinelLogin>,
    /// Of every key.
    pub(super) prefix: &'a str,
    pub(super) tls: &'a TlsMaterial,
    pub(super) context: &'a StoreContext,
}

/// How the gate signs in at Sentinels, which have users of their own.
#[derive(Clone)]
pub(super) struct SentinelLogin {
    pub(super) user: Option<String>,
    pub(super) password: SecretString,
}

impl OpenOptions<'_> {
    pub(super) fn is_for(&self, wanted: StoreUse) -> bool {
        self.uses.contains(&wanted)
    }

    /// For servers whose certificate must have the name of the host.
    pub(super) fn tls_config(&self) -> Arc<ClientConfig> {
        self.tls.configure(&self.context.tls, Verification::Full)
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

/// The ports for some uses of a store. They share connections and health checks.
#[derive(Clone)]
pub(super) struct OpenPorts {
    pub(super) health: Arc<dyn HealthCheck>,
    pub(super) quotas: Option<Arc<dyn QuotaStore>>,
    pub(super) rate_limits: Option<Arc<dyn RateLimitStore>>,
    pub(super) sessions: Option<Arc<dyn SessionBackend>>,
    pub(super) memberships: Option<Arc<dyn MemberDatabase>>,
    pub(super) leases: Option<Arc<dyn LeaseStore>>,
    pub(super) records: Option<Arc<dyn RecordStore>>,
    pub(super) time: Option<Arc<dyn StoreTime>>,
}

impl OpenPorts {
    pub(super) fn none(health: Arc<dyn HealthCheck>) -> Self {
        Self {
            health,
            quotas: None,
            rate_limits: None,
            sessions: None,
            memberships: None,
            leases: None,
            records: None,
            time: None,
        }
    }
}

/// An operation on the state of a session. Times are from now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionAction {
    Load,
    Save {
        /// Only a new session is created. One that was deleted meanwhile stays deleted.
        is_new: bool,
        state: String,
        ttl: Duration,
    },
    Extend(Duration),
    Delete,
}

pub trait SessionBackend: Send + Sync {
    /// Returns the state for [`SessionAction::Load`].
    fn act<'a>(
        &'a self,
        key: &'a str,
        action: SessionAction,
    ) -> LocalBoxFuture<'a, Result<Option<String>, StoreFault>>;
}

/// How many rows of an answer are read. No member has more roles.
pub(super) const MAX_ROWS: usize = 100;

pub(super) const MAX_CONNECTIONS: usize = 8;

/// One row of a query: a membership in one role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRow {
    pub role: Option<String>,
    /// The second column, if the query has one: the workspace's id as the database spells it.
    pub workspace: Option<WorkspaceId>,
}

/// Leases that several gates share, so that one of them does a piece of work.
pub trait LeaseStore: Send + Sync {
    /// Takes the lease `name` for `ttl` if it is free, or renews it if `holder` has it. Returns whether `holder` has it
    /// now. The store's clock ends a lease.
    fn acquire<'a>(
        &'a self,
        name: &'a str,
        holder: &'a str,
        ttl: Duration,
    ) -> LocalBoxFuture<'a, Result<bool, StoreFault>>;
}

/// A store that several gates share, and whose clock they follow.
pub(super) trait StoreTime: Send + Sync {
    /// Reads the store's clock.
    fn now(&self) -> LocalBoxFuture<'_, Result<Timestamp, StoreFault>>;
}

/// A database with memberships, which the gate only reads.
pub trait MemberDatabase: Send + Sync {
    /// Prepares `query`, and returns its columns. Fails if they are not those of memberships.
    fn columns<'a>(&'a self, query: &'a str)
    -> LocalBoxFuture<'a, Result<Vec<String>, StoreFault>>;

    /// Returns the rows of `query`, in which `$1` is the user and `$2` the workspace. The caller gives up after `within`.
    fn members<'a>(
        &'a self,
        query: &'a str,
        user: &'a str,
        workspace: &'a str,
        within: Duration,
    ) -> LocalBoxFuture<'a, Result<Vec<MemberRow>, StoreFault>>;

    /// Changes if another database takes the place of this one. Cached answers of the earlier one must not be used.
    fn version(&self) -> u32 {
        0
    }
}

pub(super) fn workspace_id(text: &str) -> Result<WorkspaceId, StoreFault> {
    WorkspaceId::parse(text)
        .map_err(|error| StoreFault::invalid_id(format_args!("an id that {error}")))
}
