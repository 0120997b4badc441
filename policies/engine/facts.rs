//! What the chain establishes about a request.

use std::sync::Arc;

use crate::{Subject, WorkspaceId, engine::fact_values::FactValues};

/// A fact that a policy needs from an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The user; `signed_in` provides it.
    Subject,
    /// The workspace, with a membership in it; `workspace_member` provides it.
    Membership,
}

impl Fact {
    /// The kind of policy that provides it.
    #[must_use]
    pub fn provided_by(self) -> &'static str {
        match self {
            Self::Subject => "signed_in",
            Self::Membership => "workspace_member",
        }
    }
}

/// What the chain has established so far.
#[derive(Debug, Default)]
pub struct Facts {
    /// The user, once `signed_in` has passed.
    pub subject: Option<Arc<Subject>>,
    /// The workspace and the subject's membership in it, once `workspace_member` has passed.
    pub membership: Option<Membership>,
    values: FactValues,
}

/// What a policy establishes for the policies after it.
#[derive(Debug)]
pub enum NewFact {
    /// The user.
    Subject(Arc<Subject>),
    /// The workspace that the subject is a member of.
    Membership(Membership),
}

impl Facts {
    /// Facts that are already known.
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

/// A workspace that the subject belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The subject's role in it, if the source has roles.
    pub role: Option<String>,
}
