//! The port through which a database is asked for memberships, and what its backends share.

use futures_util::future::LocalBoxFuture;

use super::fault::StoreFault;

/// How many rows of an answer are read at most: no member has more roles.
pub(super) const MAX_ROWS: usize = 100;

/// How many connections to a database there are at most.
pub(super) const MAX_CONNECTIONS: usize = 8;

/// A database that memberships are looked up in; nothing is written to it.
pub trait MemberDatabase: Send + Sync {
    /// The first column of each row that `query` finds, where `$1` is the user and `$2` the workspace.
    ///
    /// # Errors
    ///
    /// Resolves to a [`StoreFault`] if there is no answer of use.
    fn first_column<'a>(
        &'a self,
        query: &'a str,
        user: &'a str,
        workspace: &'a str,
    ) -> LocalBoxFuture<'a, Result<Vec<Option<String>>, StoreFault>>;

    /// Whether it is known to answer. A database that does not is probed until it does, and no request waits for that.
    fn is_healthy(&self) -> bool;

    /// Probes it beside everything else.
    fn begin(&self);
}
