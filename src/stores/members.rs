//! The port for membership queries, and what its backends share.

use futures_util::future::LocalBoxFuture;
use policies::WorkspaceId;

use super::fault::StoreFault;

/// How many rows of an answer are read. No member has more roles.
pub(super) const MAX_ROWS: usize = 100;

pub(super) const MAX_CONNECTIONS: usize = 8;

/// One row of a query: a membership in one role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRow {
    pub role: Option<String>,
    /// The second column, if the query has one: the workspace's id as the database spells it.
    pub workspace: Option<WorkspaceId>,
}

/// A database with memberships, which the gate only reads.
pub trait MemberDatabase: Send + Sync {
    /// Returns the rows of `query`, in which `$1` is the user and `$2` the workspace.
    fn members<'a>(
        &'a self,
        query: &'a str,
        user: &'a str,
        workspace: &'a str,
    ) -> LocalBoxFuture<'a, Result<Vec<MemberRow>, StoreFault>>;
}

pub(super) fn workspace_id(text: &str) -> Result<WorkspaceId, StoreFault> {
    WorkspaceId::parse(text)
        .map_err(|error| StoreFault::invalid_id(format_args!("an id that {error}")))
}
