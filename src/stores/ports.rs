//! The ports of an open store.

use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use policies::{QuotaStore, RateLimitStore};

use super::{members::MemberDatabase, sessions::SessionBackend};

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
}

pub(super) trait HealthCheck: Send + Sync {
    fn is_healthy(&self) -> bool;

    /// Starts a first probe in the background, unless opening the store already showed whether it works.
    fn start(&self) {}

    /// Tests whether the store works.
    fn check(&self) -> LocalBoxFuture<'_, Result<(), String>>;
}
