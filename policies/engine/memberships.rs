//! Sources of memberships outside of the config: the port of the kind `workspace_member`.

use futures_util::future::ready;

use crate::{BoxFuture, Endpoint, StoreName, SubjectId, WorkspaceId};

/// Where memberships are looked up.
#[derive(Clone, Copy, Debug)]
pub enum MembershipSource<'a> {
    /// The app, by a template of its URL.
    Url(&'a Endpoint),
    /// A database, by a query.
    Query {
        /// The name of the store.
        store: &'a StoreName,
        /// The SQL query, with the parameters `$1` for the user and `$2` for the workspace.
        query: &'a str,
    },
}

/// A source of memberships.
pub trait Memberships: Send + Sync {
    /// Looks up the membership of `user` in `workspace`.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`](crate::Fault) if the source fails.
    fn find<'a>(
        &'a self,
        workspace: &'a WorkspaceId,
        user: &'a SubjectId,
    ) -> BoxFuture<'a, MemberAnswer>;

    /// Says what the source returns, for `doctor`. By default it cannot tell without a lookup.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`](crate::Fault) if every lookup would fail.
    fn describe(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(ready(Ok(None)))
    }
}

/// A membership, as a source reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The roles of the member. There may be none.
    pub roles: Vec<String>,
    /// The id of the workspace as the source spells it, if the source returns it. A source may accept several spellings
    /// of an id, for example in upper case.
    pub workspace: Option<WorkspaceId>,
}

/// The result of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberAnswer {
    /// The user is a member of the workspace.
    Member(Member),
    /// The user is not a member of the workspace.
    NotAMember,
    /// The source was not asked, because it cannot take one of the ids: a URL may not contain every character.
    NotAsked,
}

impl From<Option<Member>> for MemberAnswer {
    fn from(member: Option<Member>) -> Self {
        member.map_or(Self::NotAMember, Self::Member)
    }
}
