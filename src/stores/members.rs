//! The port through which a database is asked for memberships, and what its backends share.

use futures_util::future::LocalBoxFuture;
use policies::WorkspaceId;

use super::fault::StoreFault;

/// How many rows of an answer are read at most: no member has more roles.
pub(super) const MAX_ROWS: usize = 100;

/// How many connections to a database there are at most.
pub(super) const MAX_CONNECTIONS: usize = 8;

/// A row that a query finds: a membership in one role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRow {
    /// The first column.
    pub role: Option<String>,
    /// The second column, if the query has one: the workspace's id in the spelling of the database.
    pub workspace: Option<WorkspaceId>,
}

/// A database that memberships are looked up in; nothing is written to it.
pub trait MemberDatabase: Send + Sync {
    /// The rows that `query` finds, where `$1` is the user and `$2` the workspace.
    ///
    /// # Errors
    ///
    /// Resolves to a [`StoreFault`] if there is no answer of use.
    fn members<'a>(
        &'a self,
        query: &'a str,
        user: &'a str,
        workspace: &'a str,
    ) -> LocalBoxFuture<'a, Result<Vec<MemberRow>, StoreFault>>;
}

/// The workspace's id that the second column has.
pub(super) fn workspace_id(text: &str) -> Result<WorkspaceId, StoreFault> {
    WorkspaceId::parse(text).map_err(|error| StoreFault::no_id(format_args!("an id that {error}")))
}
