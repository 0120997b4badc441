//! What a kind of identity is: its settings, and what judges credentials.

use std::{fmt, sync::Arc};

use policies::{BoxFuture, Clock, Denial, Fault, IdentityName, Presented};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::{
    case::Case, claims::KeptClaims, credential::TokenSource, keys::PublishedKeys, profile::Profile,
    section::Section, token::Token,
};
use crate::{config::session::SessionSettings, outbound::Outbound};

/// A kind of identity: the settings of `[identities.<name>]`, their checks, and what they build.
///
/// serde reads the settings and finds faults in single values. The comments of the type are the descriptions in the
/// schema.
pub trait IdentityKind: DeserializeOwned + JsonSchema + fmt::Debug + Send + Sync + 'static {
    /// `kind` in the config.
    const NAME: &'static str;

    /// What the gate needs to know of the identity besides its verdicts.
    fn profile(&self) -> Profile<'_>;

    /// Notes what is wrong with the settings, and loads the secrets that they name. Returns what builds the identity;
    /// `None` if a fault was noted.
    fn resolve(self: Arc<Self>, section: &mut Section<'_>) -> Option<Build>;
}

/// Builds an identity. The gate calls it whenever it builds rules: at the start, and at each reload.
pub type Build = Box<dyn Fn(&BuildContext<'_>) -> Arc<dyn Identity> + Send + Sync>;

/// What an identity is built with.
pub struct BuildContext<'a> {
    pub(super) name: &'a IdentityName,
    pub(super) kept: &'a KeptClaims,
    pub(super) outbound: &'a Outbound,
    /// `[session]` of the running gate.
    pub(super) session: Option<&'a SessionSettings>,
    /// The identity of this name in the rules that are in force.
    pub(super) earlier: Option<&'a dyn Identity>,
}

impl BuildContext<'_> {
    /// The name of the identity.
    #[must_use]
    pub fn name(&self) -> &IdentityName {
        self.name
    }

    /// Keeps the claims that policies and sessions read. A subject should have no others.
    #[must_use]
    pub fn kept_claims(&self) -> &KeptClaims {
        self.kept
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.outbound.clock
    }
}

/// Judges credentials. All workers share it, until the next reload.
pub trait Identity: Send + Sync {
    /// Judges the credential that addresses this identity: [`Presented::Nothing`] if there is none.
    fn judge<'a>(&'a self, case: &'a Case<'_>) -> Judgement<'a>;

    /// The places that [`Case::find`] reads for this identity.
    fn token_sources(&self) -> &[TokenSource] {
        &[]
    }

    /// Whether a token in this place addresses this identity, so that no `introspection` identity asks about it.
    fn claims_token(&self, source: &TokenSource, token: &Token<'_>) -> bool {
        let _ = (source, token);
        false
    }

    /// Why a token in a place of this identity does not address it, for the log. `None` if such a token is nothing.
    fn why_unaddressed(&self, token: &Token<'_>) -> Option<String> {
        let _ = token;
        None
    }

    /// The keys that the gate keeps up to date for this identity. Without them, the gate is not ready.
    fn published_keys(&self) -> Option<&Arc<PublishedKeys>> {
        None
    }
}

/// A verdict on a credential.
pub enum Judgement<'a> {
    /// It is known. This costs no allocation.
    Now(Result<Presented, Fault>),
    /// It has to be waited for.
    Later(BoxFuture<'a, Presented>),
}

impl Judgement<'_> {
    pub(super) async fn get(self) -> Result<Presented, Fault> {
        match self {
            Self::Now(judged) => judged,
            Self::Later(judging) => judging.await,
        }
    }
}

impl From<Presented> for Judgement<'_> {
    fn from(presented: Presented) -> Self {
        Self::Now(Ok(presented))
    }
}

impl From<Denial> for Judgement<'_> {
    fn from(denial: Denial) -> Self {
        Presented::Refused(denial).into()
    }
}

/// Why an identity cannot decide.
pub(super) fn fault(
    identity: &IdentityName,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Fault {
    Fault::Identity {
        identity: identity.clone(),
        source: Box::new(error),
    }
}
