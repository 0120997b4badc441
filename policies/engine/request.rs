//! The request of a client, parsed, without HTTP types.

use std::{net::IpAddr, sync::Arc};

use jiff::Timestamp;

use crate::{BoxFuture, Claims, Denial, IdentityName, Purpose, RoutePath, SubjectId, WorkspaceId};

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
