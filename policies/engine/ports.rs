//! What policies need from outside: the ports that the service implements.

use std::{error::Error, sync::Arc};

use crate::{
    AcceptedIdentities, Decider, Endpoint, Fault, IdentityName, Interval, MembershipSource,
    Memberships, PolicyName, Protocol, QuotaStore, RateLimitStore, StoreName,
};

/// What the policy that is being built needs from outside.
pub trait Ports {
    /// The identities of these names.
    ///
    /// # Errors
    ///
    /// If an identity does not exist.
    fn accept(&self, names: &[IdentityName]) -> Result<AcceptedIdentities, BuildError>;

    /// The store of this name, for quotas.
    ///
    /// # Errors
    ///
    /// If no store of this name counts quotas.
    fn quotas(&self, store: &StoreName) -> Result<Arc<dyn QuotaStore>, BuildError>;

    /// The store of this name, for rate limits.
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
    #[error("there is no policy `{0}`")]
    Policy(PolicyName),
    /// A store does not support what the policy needs.
    #[error(transparent)]
    Store(#[from] Fault),
    /// A reason of the kind's own.
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
