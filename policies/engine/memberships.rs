//! Sources of memberships outside of the config.

use crate::{BoxFuture, Endpoint, StoreName, SubjectId, WorkspaceId};

/// The source of memberships outside of the gate.
#[derive(Clone, Copy, Debug)]
pub enum MembershipSource<'a> {
    /// The app's HTTP API.
    Url(&'a Endpoint),
    /// A database.
    Query {
        /// Which store.
        store: &'a StoreName,
        /// The SQL query.
        query: &'a str,
    },
}

/// A source of memberships: the port that the service implements.
pub trait Memberships: Send + Sync {
    /// Whether `user` is a member of `workspace`, and the source's spelling of the workspace and the roles.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if the source fails.
    fn find<'a>(
        &'a self,
        workspace: &'a WorkspaceId,
        user: &'a SubjectId,
    ) -> BoxFuture<'a, MemberAnswer>;
}

/// A membership in a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its roles. There may be none.
    pub roles: Vec<String>,
    /// The workspace as the source spells it, if the source tells. Sources compare more loosely than by bytes, so the
    /// client's text may be one of many spellings of an id.
    pub workspace: Option<WorkspaceId>,
}

/// A source's answer for a subject and a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberAnswer {
    /// The subject is a member.
    Member(Member),
    /// The subject is not a member.
    NotAMember,
    /// The source was not asked, because it cannot take one of the ids: a URL may not contain every character.
    NotAsked,
}

impl From<Option<Member>> for MemberAnswer {
    fn from(member: Option<Member>) -> Self {
        member.map_or(Self::NotAMember, Self::Member)
    }
}
