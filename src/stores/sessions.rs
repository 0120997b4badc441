//! The port through which a store keeps sessions.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use super::fault::StoreFault;

/// What is done with the state of a session, which is kept under its key for as long as it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionAction {
    /// Reads the state, if the session has not ended.
    Load,
    /// Writes the state of a session for as long as it lasts.
    Save {
        /// Whether it is a new one. One that was ended meanwhile stays ended.
        is_new: bool,
        /// The state.
        state: String,
        /// How long it lasts from now.
        ttl: Duration,
    },
    /// Lets the session last so long from now.
    Extend(Duration),
    /// Ends the session.
    Delete,
}

/// Keeps sessions.
pub trait SessionBackend: Send + Sync {
    /// Does `action`. Returns the state if it was read.
    ///
    /// # Errors
    ///
    /// Resolves to a [`StoreFault`] if the store does not do it.
    fn act<'a>(
        &'a self,
        key: &'a str,
        action: SessionAction,
    ) -> LocalBoxFuture<'a, Result<Option<String>, StoreFault>>;
}
