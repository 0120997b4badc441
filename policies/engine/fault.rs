//! Faults: why a policy cannot decide.

use futures_util::future::LocalBoxFuture;

use crate::{IdentityName, StoreName};

/// A future that resolves to a `T` or to a [`Fault`]. It is not `Send`: it stays on the worker thread that created it.
pub type BoxFuture<'a, T> = LocalBoxFuture<'a, Result<T, Fault>>;

/// Why a policy cannot decide: something that it depends on is down, too slow, or returns an invalid response.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A store failed or was too slow.
    #[error("store `{store}`: {source}")]
    Store {
        /// The name of the store.
        store: StoreName,
        /// The error of the store.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A service failed, or its response is invalid.
    #[error("the call of the service failed: {0}")]
    Service(Box<dyn std::error::Error + Send + Sync>),
    /// An identity could not verify a credential.
    #[error("identity `{identity}`: {source}")]
    Identity {
        /// The name of the identity.
        identity: IdentityName,
        /// The error of the identity.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
