//! Facts that policies establish for later policies of the chain.

use std::sync::Arc;

use crate::{Subject, WorkspaceId, engine::fact_values::FactValues};

/// The name of a fact that a policy provides to later policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The user. `signed_in` provides it.
    Subject,
    /// The membership in a workspace. `workspace_member` provides it.
    Membership,
}

impl Fact {
    /// Returns the built-in kind of policy that provides the fact.
    #[must_use]
    pub fn provided_by(self) -> &'static str {
        match self {
            Self::Subject => "signed_in",
            Self::Membership => "workspace_member",
        }
    }
}

/// The facts that the chain has established so far.
#[derive(Debug, Default)]
pub struct Facts {
    /// The user, after a policy of kind `signed_in`.
    pub subject: Option<Arc<Subject>>,
    /// The user's membership in a workspace, after a policy of kind `workspace_member`.
    pub membership: Option<Membership>,
    values: FactValues,
}

/// A fact that a policy establishes, with its value.
#[derive(Debug)]
pub enum NewFact {
    /// The signed-in user.
    Subject(Arc<Subject>),
    /// The user's membership in a workspace.
    Membership(Membership),
}

impl Facts {
    /// Creates facts that are known from elsewhere, for example for a test.
    #[must_use]
    pub fn new(subject: Option<Arc<Subject>>, membership: Option<Membership>) -> Self {
        Self {
            subject,
            membership,
            values: FactValues::default(),
        }
    }

    pub(crate) fn values(&self) -> &FactValues {
        &self.values
    }

    pub(crate) fn add(&mut self, new_fact: NewFact) {
        match new_fact {
            NewFact::Subject(subject) => *self = Self::new(Some(subject), self.membership.take()),
            NewFact::Membership(membership) => self.membership = Some(membership),
        }
    }
}

/// A membership of the user in a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The id of the workspace.
    pub workspace: WorkspaceId,
    /// The role in the workspace that allowed the user, if the source has roles.
    pub role: Option<String>,
}
