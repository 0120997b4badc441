//! The ports: what policies need from the service.

use std::{error::Error, sync::Arc};

use crate::{
    AcceptedIdentities, Decider, Endpoint, Fault, IdentityName, Interval, MembershipSource,
    Memberships, PolicyName, Protocol, QuotaStore, RateLimitStore, StoreName,
};

/// Opens what a policy needs from outside while it is built. The service implements it.
pub trait Ports {
    /// Finds the identities of these names.
    ///
    /// # Errors
    ///
    /// If one of them does not exist.
    fn accept(&self, names: &[IdentityName]) -> Result<AcceptedIdentities, BuildError>;

    /// Opens a store for quotas.
    ///
    /// # Errors
    ///
    /// If no store of this name counts quotas.
    fn quotas(&self, store: &StoreName) -> Result<Arc<dyn QuotaStore>, BuildError>;

    /// Opens a store for rate limits.
    ///
    /// # Errors
    ///
    /// If no store of this name counts rate limits.
    fn rate_limits(&self, store: &StoreName) -> Result<Arc<dyn RateLimitStore>, BuildError>;

    /// Opens a source of memberships.
    ///
    /// # Errors
    ///
    /// If the store does not support queries, or the endpoint is not a valid template.
    fn memberships(
        &self,
        source: MembershipSource<'_>,
        call: CallSettings,
    ) -> Result<Arc<dyn Memberships>, BuildError>;

    /// Opens a client of a service that decides.
    ///
    /// # Errors
    ///
    /// If the endpoint is not the URL of a service.
    fn decider(
        &self,
        endpoint: &Endpoint,
        protocol: Protocol,
        call: CallSettings,
    ) -> Result<Arc<dyn Decider>, BuildError>;
}

/// Why a policy could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A chain names an unknown policy.
    #[error("unknown policy `{0}`")]
    Policy(PolicyName),
    /// A store does not support what the policy needs.
    #[error(transparent)]
    Store(#[from] Fault),
    /// Any other reason.
    #[error(transparent)]
    Other(Box<dyn Error + Send + Sync>),
}

/// How a service or a database is called.
#[derive(Clone, Copy, Debug)]
pub struct CallSettings {
    /// How long a call may take.
    pub timeout: Interval,
    /// How long an answer is cached. `None` disables the cache.
    pub cache: Option<Interval>,
}
