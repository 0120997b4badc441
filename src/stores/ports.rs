//! The ports of an open store.

use std::{sync::Arc, time::Duration};

use futures_util::future::LocalBoxFuture;
use jiff::Timestamp;
use policies::{QuotaStore, RateLimitStore, WorkspaceId};

use super::fault::StoreFault;

/// The ports for some uses of a store. They share connections and health checks.
#[derive(Clone)]
pub(super) struct OpenPorts {
    pub(super) health: Arc<dyn HealthCheck>,
    pub(super) ports: Vec<Port>,
}

#[derive(Clone)]
pub(super) enum Port {
    Quotas(Arc<dyn QuotaStore>),
    RateLimits(Arc<dyn RateLimitStore>),
    Sessions(Arc<dyn SessionBackend>),
    Memberships(Arc<dyn MemberDatabase>),
    Leases(Arc<dyn LeaseStore>),
    Time(Arc<dyn StoreTime>),
}

pub(super) trait HealthCheck: Send + Sync {
    fn is_healthy(&self) -> bool;

    /// Starts a first probe in the background, unless opening the store already showed whether it works.
    fn start(&self) {}

    /// Tests whether the store works.
    fn check(&self) -> LocalBoxFuture<'_, Result<(), StoreFault>>;
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

/// A database with memberships, which the gate only reads.
pub trait MemberDatabase: Send + Sync {
    /// Prepares `query`, and returns its columns. Fails if they are not those of memberships.
    fn columns<'a>(&'a self, query: &'a str)
    -> LocalBoxFuture<'a, Result<Vec<String>, StoreFault>>;

    /// Returns the rows of `query`, in which `$1` is the user and `$2` the workspace.
    fn members<'a>(
        &'a self,
        query: &'a str,
        user: &'a str,
        workspace: &'a str,
    ) -> LocalBoxFuture<'a, Result<Vec<MemberRow>, StoreFault>>;
}

pub(super) fn workspace_id(text: &str) -> Result<WorkspaceId, StoreFault> {
    WorkspaceId::parse(text)
        .map_err(|error| StoreFault::invalid_id(format_args!("an id that {error}")))
}
