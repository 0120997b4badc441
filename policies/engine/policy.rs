//! The vocabulary of a policy: what it sees and what it may answer.

use std::{any::Any, sync::Arc};

use futures_util::future::LocalBoxFuture;

use crate::{
    Denial, Hold, IdentityName, LimitState, StoreName, Subject, UploadRequest, Window, WorkspaceId,
    engine::fact_values::FactValues,
};

/// One rule of a chain.
///
/// Shared by every worker and every route that names it. Its futures stay on the worker that made them.
pub trait Policy: Any + Send + Sync {
    /// Decides on one request.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] when the policy cannot tell; a "no" is [`Verdict::Deny`].
    fn decide<'a>(&'a self, evaluating: Evaluating<'a>) -> Deciding<'a>;

    /// The counters of a policy that keeps some for good.
    fn counted(&self) -> Option<&dyn Counted> {
        None
    }
}

/// What a policy has counted, for its operator.
pub trait Counted {
    /// How many units are counted under `key`, and in which window.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] when the store cannot tell.
    fn used<'a>(&'a self, key: &str) -> LocalBoxFuture<'a, Result<(u64, Window), Fault>>;

    /// Gives back all that is counted under `key`.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] when the store cannot do it.
    fn give_back<'a>(&'a self, key: &str) -> LocalBoxFuture<'a, Result<(), Fault>>;
}

/// The answer of [`Policy::decide`], in the making.
pub type Deciding<'a> = LocalBoxFuture<'a, Result<Decision, Fault>>;

/// What a policy sees of the request that it decides on.
#[derive(Clone, Copy)]
pub struct Evaluating<'a> {
    /// What the client asks for.
    pub request: &'a UploadRequest,
    /// What the policies before this one found out.
    pub facts: &'a Facts,
    /// Whether to count.
    pub pass: Pass,
}

/// Whether an evaluation counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// A token is asked for: limits count.
    Issue,
    /// Someone asks what would happen: nothing is consumed and nothing held.
    Preview,
}

/// What the chain found out so far.
#[derive(Debug, Default)]
pub struct Facts {
    /// Who asks, once `signed_in` has passed.
    pub subject: Option<Arc<Subject>>,
    /// The workspace that the subject is known to be a member of, once `workspace_member` has passed.
    pub membership: Option<Membership>,
    values: FactValues,
}

/// What a policy found out for those after it.
#[derive(Debug)]
pub enum Finding {
    /// Who asks.
    Subject(Arc<Subject>),
    /// The workspace that the subject is a member of.
    Membership(Membership),
}

impl Facts {
    /// Facts that are known already.
    #[must_use]
    pub fn new(subject: Option<Arc<Subject>>, membership: Option<Membership>) -> Self {
        Self {
            subject,
            membership,
            values: FactValues::default(),
        }
    }

    /// What expressions share of the facts.
    pub(crate) fn values(&self) -> &FactValues {
        &self.values
    }

    pub(crate) fn add(&mut self, finding: Finding) {
        match finding {
            Finding::Subject(subject) => *self = Self::new(Some(subject), self.membership.take()),
            Finding::Membership(membership) => self.membership = Some(membership),
        }
    }
}

/// A workspace that the subject belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The subject's role in it, where the source tells roles.
    pub role: Option<String>,
}

/// A policy's answer.
pub struct Decision {
    /// Yes, no, or yes while something is held.
    pub verdict: Verdict,
    /// The state of the limit that decided, for the `RateLimit` fields of the answer.
    pub limit: Option<LimitState>,
    /// What it found out on the way.
    pub finding: Option<Finding>,
    /// What went wrong, where the policy has an answer all the same.
    pub despite: Option<Box<Fault>>,
}

impl From<Verdict> for Decision {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            limit: None,
            finding: None,
            despite: None,
        }
    }
}

impl Decision {
    /// Adds the state of the limit that decided.
    #[must_use]
    pub fn with_limit(self, limit: LimitState) -> Self {
        Self {
            limit: Some(limit),
            ..self
        }
    }

    /// Adds what was found out.
    #[must_use]
    pub fn with_finding(self, finding: Finding) -> Self {
        Self {
            finding: Some(finding),
            ..self
        }
    }
}

/// What a policy says.
#[must_use]
pub enum Verdict {
    /// Go on.
    Allow,
    /// Stop here.
    Deny(Denial),
    /// Go on; what is held is to be settled when it is known whether a token was issued.
    Hold(Box<dyn Hold>),
}

/// A policy cannot tell: something that it depends on is down, slow or talks nonsense.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A store did not do what it was asked.
    #[error("store `{store}`: {source}")]
    Store {
        /// Which store.
        store: StoreName,
        /// What the backend said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A service that was asked gave no answer of use.
    #[error("the service cannot be asked: {0}")]
    Service(Box<dyn std::error::Error + Send + Sync>),
    /// An identity could not be asked who someone is.
    #[error("identity `{identity}`: {source}")]
    Identity {
        /// Which identity.
        identity: IdentityName,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
