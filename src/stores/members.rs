//! The port through which a database is asked for memberships, and what its backends share.

use futures_util::future::LocalBoxFuture;
use policies::WorkspaceId;

use super::health::Health;

/// The most rows of an answer that are read: more roles has nobody.
pub(super) const MAX_ROWS: usize = 100;

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
    /// Resolves to a [`QueryError`] when there is no answer of use.
    fn members<'a>(
        &'a self,
        query: &'a str,
        user: &'a str,
        workspace: &'a str,
    ) -> LocalBoxFuture<'a, Result<Vec<MemberRow>, QueryError>>;

    /// Whether it can be asked. One that cannot is probed until it can, and nobody waits for that.
    fn is_healthy(&self) -> bool;

    /// Finds out beside everything else whether it can be asked.
    fn begin(&self);
}

/// Why a database has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// It cannot be reached, or was not a moment ago.
    #[error("the database cannot be reached: {0}")]
    Down(String),
    /// It did not answer in time.
    #[error("the database did not answer in time")]
    Timeout,
    /// It answered, but not what was asked.
    #[error("the query fails: {0}")]
    Query(String),
}

impl QueryError {
    /// The fault of a query whose first column holds something else.
    pub(super) fn no_text(found: impl std::fmt::Display) -> Self {
        Self::Query(format!(
            "the first column must be the role, a text or null, and is {found}"
        ))
    }

    /// The fault of a query whose second column holds something else.
    pub(super) fn no_id(found: impl std::fmt::Display) -> Self {
        Self::Query(format!(
            "the second column must be the workspace's id, a text, a uuid or an integer, and is {found}"
        ))
    }
}

/// The workspace's id that the second column has.
pub(super) fn workspace_id(text: &str) -> Result<WorkspaceId, QueryError> {
    WorkspaceId::parse(text).map_err(|error| {
        QueryError::Query(format!(
            "the second column must be the workspace's id, and {error}"
        ))
    })
}

/// Fails at once while the database is down.
pub(super) fn check(health: &Health) -> Result<(), QueryError> {
    if health.is_up() {
        Ok(())
    } else {
        Err(QueryError::Down("it is probed".to_owned()))
    }
}
