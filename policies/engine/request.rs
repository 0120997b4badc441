//! The request of a client, parsed, without HTTP types, and the facts that policies establish about it.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use jiff::Timestamp;

use crate::{
    BoxFuture, Claims, Denial, IdentityName, Purpose, RoutePath, SubjectId, WorkspaceId,
    engine::fact_values::FactValues,
};

/// A request for an upload token.
pub struct UploadRequest {
    /// The route that the client requested.
    pub route: RoutePath,
    /// The workspace that the client names. It is not verified.
    pub workspace: Option<WorkspaceId>,
    /// The purpose of the upload, as the client declares it.
    pub purpose: Option<Purpose>,
    /// The file as the client declares it.
    pub file: Option<DeclaredFile>,
    /// The address of the client, as trusted proxies report it.
    pub ip: IpAddr,
    /// The credentials of the request.
    pub credentials: Box<dyn Credentials>,
}

/// The credentials of a request. The service implements it.
pub trait Credentials {
    /// Finds the first identity of `accept` that a credential of the request belongs to. Only that identity checks the
    /// credential.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`](crate::Fault) if that identity cannot decide, not if the credential is invalid.
    fn authenticate<'a>(&'a self, accept: &'a AcceptedIdentities) -> BoxFuture<'a, Presented>;
}

/// The identities that a policy accepts, resolved when the policy is built. The service that implements [`Credentials`]
/// finds them by their positions.
#[derive(Clone, Debug)]
pub struct AcceptedIdentities {
    first: Option<IdentityName>,
    positions: Box<[usize]>,
}

impl AcceptedIdentities {
    /// Creates a list of the identities at `positions`. `first` is the name of the first one.
    #[must_use]
    pub fn new(first: Option<IdentityName>, positions: Vec<usize>) -> Self {
        Self {
            first,
            positions: positions.into(),
        }
    }

    /// Returns the name of the first identity.
    #[must_use]
    pub fn first(&self) -> Option<&IdentityName> {
        self.first.as_ref()
    }

    /// Returns the positions of the identities in the list of the service.
    #[must_use]
    pub fn positions(&self) -> &[usize] {
        &self.positions
    }
}

/// The result of checking the credentials of a request.
pub enum Presented {
    /// The request has no credential.
    Nothing,
    /// A credential of this user is valid.
    Subject(Arc<Subject>),
    /// A credential is invalid, or belongs to none of the identities.
    Refused(Denial),
}

/// A signed-in user: the subject of a credential.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The id of the user, unique within the app.
    pub id: SubjectId,
    /// The identity that confirmed the credential. For a session, the identity that the session was created by.
    pub identity: IdentityName,
    /// Whether the credential is a session.
    pub session: bool,
    /// The claims of the credential, other than the id.
    pub claims: Claims,
    /// When the credential expires, if it does.
    pub expires_at: Option<Timestamp>,
}

/// The file as the client declares it. The gate never reads its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeclaredFile {
    /// The name of the file.
    pub name: Option<String>,
    /// The media type of the file.
    pub mime_type: Option<String>,
    /// The size of the file in bytes.
    pub size: Option<u64>,
}

/// The name of a fact that a policy provides to later policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The user. `signed_in` provides it.
    Subject,
    /// The membership in a workspace. `workspace_member` provides it.
    Membership,
}

impl Fact {
    /// All facts.
    pub const ALL: [Self; 2] = [Self::Subject, Self::Membership];

    /// Returns the name of the fact in expressions.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Membership => "workspace",
        }
    }

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
    /// Built when the first expression reads a fact.
    values: OnceLock<FactValues>,
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
            values: OnceLock::new(),
        }
    }

    pub(crate) fn values(&self) -> &FactValues {
        self.values.get_or_init(FactValues::default)
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
    /// The other roles that the user has in the workspace.
    pub other_roles: Vec<String>,
}

impl Membership {
    /// Returns whether the user has this role in the workspace.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        let mut roles = self.role.iter().chain(&self.other_roles);
        roles.any(|other| other == role)
    }
}
