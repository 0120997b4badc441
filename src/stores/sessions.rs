//! The port through which a store keeps sessions.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use super::fault::StoreFault;

/// An operation on the state of a session, which is stored under its key until it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionAction {
    Load,
    Save {
        /// A session that was ended meanwhile stays ended, unless it is new.
        is_new: bool,
        state: String,
        /// From now.
        ttl: Duration,
    },
    /// The session ends after this time from now.
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
