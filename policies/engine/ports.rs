//! The ports through which policies reach stores, services and databases. Those of stores have files of their own.

use std::{error::Error, sync::Arc};

use futures_util::future::ready;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    AcceptedIdentities, BoxFuture, Clock, Endpoint, Facts, Fault, IdentityName, Interval,
    PolicyName, QuotaStore, RateLimitStore, StorageStore, StoreName, SubjectId, UploadRequest,
    WorkspaceId,
    engine::{fact_list, fact_ref::Group},
};

/// Opens what a policy needs from outside while it is built. The service implements it.
pub trait Ports {
    /// Finds the identities of these names.
    ///
    /// # Errors
    ///
    /// If one of them does not exist.
    fn accept(&self, names: &[IdentityName]) -> Result<AcceptedIdentities, BuildError>;

    /// Opens a store for quotas.
    ///
    /// # Errors
    ///
    /// If no store of this name counts quotas.
    fn quotas(&self, store: &StoreName) -> Result<Arc<dyn QuotaStore>, BuildError>;

    /// Opens a store for rate limits.
    ///
    /// # Errors
    ///
    /// If no store of this name counts rate limits.
    fn rate_limits(&self, store: &StoreName) -> Result<Arc<dyn RateLimitStore>, BuildError>;

    /// Opens a store that counts the storage of uploads.
    ///
    /// # Errors
    ///
    /// If no store of this name records uploads.
    fn storage(&self, store: &StoreName) -> Result<Arc<dyn StorageStore>, BuildError>;

    /// Opens a source of memberships.
    ///
    /// # Errors
    ///
    /// If the store does not support queries, or the endpoint is not a valid template.
    fn memberships(
        &self,
        source: MembershipSource<'_>,
        call: CallSettings,
    ) -> Result<Arc<dyn Memberships>, BuildError>;

    /// Opens a client of a service that decides.
    ///
    /// # Errors
    ///
    /// If the endpoint is not the URL of a service.
    fn decider(
        &self,
        endpoint: &Endpoint,
        protocol: Protocol,
        call: CallSettings,
    ) -> Result<Arc<dyn Decider>, BuildError>;
}

/// Why a policy could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A chain names an unknown policy.
    #[error("unknown policy `{0}`")]
    Policy(PolicyName),
    /// A store does not support what the policy needs.
    #[error(transparent)]
    Store(#[from] Fault),
    /// Any other reason.
    #[error(transparent)]
    Other(Box<dyn Error + Send + Sync>),
}

/// How long a call to a service or a database may take by default.
pub(crate) fn default_timeout() -> Interval {
    Interval::from_secs(2)
}

/// How a service or a database is called.
#[derive(Clone, Copy, Debug)]
pub struct CallSettings {
    /// How long a call may take.
    pub timeout: Interval,
    /// How long an answer is cached. `None` disables the cache.
    pub cache: Option<Interval>,
}

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
    /// Resolves to a [`Fault`] if the source fails.
    fn find<'a>(
        &'a self,
        workspace: &'a WorkspaceId,
        user: &'a SubjectId,
    ) -> BoxFuture<'a, MemberAnswer>;

    /// Says what the source returns, for `doctor`. By default it cannot tell without a lookup.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if every lookup would fail.
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

/// The format of the requests to a service and of its responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// The request is the facts. The status of the response decides: 2xx allows, 403 denies.
    #[default]
    Plain,
    /// The Data API of Open Policy Agent: the request is `{"input": facts}`. The response `{"result": true}` allows.
    /// `false` or no result denies.
    Opa,
}

/// A client of a service that decides.
pub trait Decider: Send + Sync {
    /// Asks the service whether it allows a request with these facts.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if the service fails or its response is invalid.
    fn allows<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, bool>;
}

/// The facts that a service decides on. They are serialized as one JSON object. A fact without a value is left out.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The request of the client.
    pub request: &'a UploadRequest,
    /// What the earlier policies established.
    pub facts: &'a Facts,
    /// The source of `request.time`.
    pub clock: &'a dyn Clock,
}

impl Serialize for Question<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.list(Some(self.clock), |facts| facts.serialize(serializer))
    }
}

impl Question<'_> {
    /// A key for the cache of responses: every fact except the time, as JSON.
    ///
    /// # Errors
    ///
    /// If the facts cannot be written as JSON.
    pub fn cache_key(&self) -> serde_json::Result<Vec<u8>> {
        self.list(None, |facts| serde_json::to_vec(&facts))
    }

    fn list<T>(&self, clock: Option<&dyn Clock>, read: impl FnOnce(Group<'_>) -> T) -> T {
        fact_list::list(Some(self.request), Some(self.facts), clock, read)
    }
}
