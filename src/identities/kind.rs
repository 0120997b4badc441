//! What a kind of identity is: its settings, and how an identity authenticates a request.

use std::{fmt, sync::Arc};

use futures_util::future::{LocalBoxFuture, ready};
use policies::{Clock, Denial, Fault, IdentityName, Subject};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::{
    auth_request::{AuthRequest, Token},
    claims::ClaimFilter,
    keys::PublishedKeys,
    profile::Profile,
    request_view::TokenSource,
    section::Section,
};
use crate::{config::session::SessionSettings, outbound::Outbound, telemetry::Point};

/// A kind of identity: the settings of `[identities.<name>]`, their checks, and how an identity is built from them.
///
/// serde reads the settings and finds faults in single values. The doc comments of the type are the descriptions in the
/// schema.
pub trait IdentityKind: DeserializeOwned + JsonSchema + fmt::Debug + Send + Sync + 'static {
    /// `kind` in the config.
    const NAME: &'static str;

    /// Describes the identity to the checks of the config.
    fn profile(&self) -> Profile<'_>;

    /// Checks the settings and loads the secrets that they name. Returns how to build the identity, or `None` if it
    /// reported a fault.
    fn resolve(self: Arc<Self>, section: &mut Section<'_>) -> Option<Build>;
}

/// Builds an identity. The gate calls it at the start and at each reload.
pub type Build = Box<dyn Fn(&BuildContext<'_>) -> Arc<dyn Identity> + Send + Sync>;

/// What an identity is built with.
pub struct BuildContext<'a> {
    pub(super) name: &'a IdentityName,
    pub(super) claim_filter: &'a ClaimFilter,
    pub(super) outbound: &'a Outbound,
    /// `[session]` of the running gate.
    pub(super) session: Option<&'a SessionSettings>,
    /// The identity of this name before the reload.
    pub(super) previous: Option<&'a dyn Identity>,
}

impl BuildContext<'_> {
    #[must_use]
    pub fn name(&self) -> &IdentityName {
        self.name
    }

    /// A subject must have only the claims that this filter keeps.
    #[must_use]
    pub fn claim_filter(&self) -> &ClaimFilter {
        self.claim_filter
    }

    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.outbound.clock
    }
}

/// Authenticates requests. All workers share it until the next reload.
pub trait Identity: Send + Sync {
    /// Returns the subject of the credential, or `None` if the request has no credential for this identity.
    fn authenticate<'a>(&'a self, request: &'a AuthRequest<'_>) -> Authentication<'a>;

    /// The places in which [`AuthRequest::find_token`] looks for this identity.
    fn token_sources(&self) -> &[TokenSource] {
        &[]
    }

    /// Whether a token in this place is for this identity, so that no `introspection` identity sends it to its issuer.
    fn claims_token(&self, source: &TokenSource, token: &Token<'_>) -> bool {
        let _ = (source, token);
        false
    }

    /// Why a token in a place of this identity is not for it. The log shows this if the token is for no identity.
    fn mismatch(&self, token: &Token<'_>) -> Option<String> {
        let _ = token;
        None
    }

    /// The keys that the gate keeps up to date for this identity. While there are none, the identity is not usable, and a
    /// route that accepts no other one makes the gate fail.
    fn published_keys(&self) -> Option<&Arc<PublishedKeys>> {
        None
    }

    /// Tries what the identity depends on outside of the config, for `doctor`. It must consume nothing. The parts of the
    /// points are below the identity's section, and an empty part is the section itself. An identity that depends on
    /// nothing has no points.
    fn try_out(&self) -> LocalBoxFuture<'_, Vec<Point>> {
        Box::pin(ready(Vec::new()))
    }
}

/// The result of [`Identity::authenticate`].
pub type Authentication<'a> = LocalBoxFuture<'a, Result<Option<Arc<Subject>>, AuthError>>;

/// Why a credential does not authenticate its subject.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The credential is not valid.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// The identity cannot decide.
    #[error(transparent)]
    Faulted(#[from] Fault),
}

/// The fault of an identity that cannot decide.
pub(super) fn fault(
    identity: &IdentityName,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Fault {
    Fault::Identity {
        identity: identity.clone(),
        source: Box::new(error),
    }
}
