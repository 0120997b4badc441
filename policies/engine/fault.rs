//! Faults: why a policy cannot decide.

use futures_util::future::LocalBoxFuture;

use crate::{IdentityName, StoreName};

/// A future of what a policy or a port finds out, or of the [`Fault`] that keeps it from that. It stays on the worker that
/// made it.
pub type BoxFuture<'a, T> = LocalBoxFuture<'a, Result<T, Fault>>;

/// A policy cannot decide, because something that it depends on is down, slow or responds with nonsense.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A store failed.
    #[error("store `{store}`: {source}")]
    Store {
        /// Which store.
        store: StoreName,
        /// What the backend said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A service gave no usable answer.
    #[error("the service cannot be asked: {0}")]
    Service(Box<dyn std::error::Error + Send + Sync>),
    /// An identity could not verify a credential.
    #[error("identity `{identity}`: {source}")]
    Identity {
        /// Which identity.
        identity: IdentityName,
        /// Why it could not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
