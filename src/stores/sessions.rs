//! The port for sessions.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use super::fault::StoreFault;

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
