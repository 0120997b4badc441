//! The port through which a store keeps sessions.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use super::fault::StoreFault;

/// The answer of a [`SessionBackend`].
pub type SessionFuture<'a, T> = LocalBoxFuture<'a, Result<T, StoreFault>>;

/// What is written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// A new session.
    New,
    /// A session that is there; one that was ended meanwhile stays ended.
    Existing,
}

/// Keeps the state of each session under its key for as long as it lasts.
pub trait SessionBackend: Send + Sync {
    /// The state of a session, if it has not ended.
    fn load<'a>(&'a self, key: &'a str) -> SessionFuture<'a, Option<String>>;

    /// Writes the state of a session.
    fn save<'a>(
        &'a self,
        key: &'a str,
        state: String,
        ttl: Duration,
        write: Write,
    ) -> SessionFuture<'a, ()>;

    /// Lets a session last for `ttl` from now.
    fn extend<'a>(&'a self, key: &'a str, ttl: Duration) -> SessionFuture<'a, ()>;

    /// Ends a session.
    fn delete<'a>(&'a self, key: &'a str) -> SessionFuture<'a, ()>;
}
