//! The facts of a request, parsed at the edge, without HTTP types.

use std::{net::IpAddr, sync::Arc};

use jiff::Timestamp;

use crate::{BoxFuture, Claims, Denial, IdentityName, Purpose, RoutePath, SubjectId, WorkspaceId};

/// A request for an upload token.
pub struct UploadRequest {
    /// The requested route.
    pub route: RoutePath,
    /// The workspace that the client names, not yet verified.
    pub workspace: Option<WorkspaceId>,
    /// What the upload is for, according to the client.
    pub purpose: Option<Purpose>,
    /// The file as the client declares it.
    pub file: Option<DeclaredFile>,
    /// The client's address, as the trusted proxies report it.
    pub ip: IpAddr,
    /// The credentials of the request.
    pub credentials: Box<dyn Credentials>,
}

/// The credentials of a request.
pub trait Credentials {
    /// Finds the first identity of `accept` that a credential of the request addresses. Only that identity judges the
    /// credential.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`](crate::Fault) if that identity cannot decide, not if the credential is invalid.
    fn authenticate<'a>(&'a self, accept: &'a AcceptedIdentities) -> BoxFuture<'a, Presented>;
}

/// The identities that a policy accepts, resolved when the rules are built. The service that implements [`Credentials`]
/// knows them by their positions.
#[derive(Clone, Debug)]
pub struct AcceptedIdentities {
    first: Option<IdentityName>,
    positions: Box<[usize]>,
}

impl AcceptedIdentities {
    /// The identities at `positions`; `first` is the name of the first one.
    #[must_use]
    pub fn new(first: Option<IdentityName>, positions: Vec<usize>) -> Self {
        Self {
            first,
            positions: positions.into(),
        }
    }

    /// The name of the first identity.
    #[must_use]
    pub fn first(&self) -> Option<&IdentityName> {
        self.first.as_ref()
    }

    /// The positions of the identities in the service's list.
    #[must_use]
    pub fn positions(&self) -> &[usize] {
        &self.positions
    }
}

/// What a request presents to some identities.
pub enum Presented {
    /// No credential.
    Nothing,
    /// A valid credential.
    Subject(Arc<Subject>),
    /// An invalid credential, or one that addresses none of the identities.
    Refused(Denial),
}

/// A signed-in user.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its identifier, unique within the app.
    pub id: SubjectId,
    /// The identity that vouched for it. For a session: the identity that the session came from.
    pub identity: IdentityName,
    /// Whether it comes from a session.
    pub session: bool,
    /// Its other claims.
    pub claims: Claims,
    /// When the credential expires, if it does.
    pub expires_at: Option<Timestamp>,
}

/// The file as the client declares it. The gate never sees its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeclaredFile {
    /// The file's name.
    pub name: Option<String>,
    /// Its media type.
    pub mime_type: Option<String>,
    /// Its size in bytes.
    pub size: Option<u64>,
}
