//! What a kind of identity is: its settings, and what judges credentials.

use std::{fmt, sync::Arc};

use actix_web::http::header::{AUTHORIZATION, HeaderName};
use futures_util::future::LocalBoxFuture;
use jsonwebtoken::Algorithm;
use policies::{Clock, Denial, Fault, IdentityName, Presented};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::{
    case::Case,
    issuer::{Issuers, SubjectPrefix},
    jwt::PublishedKeys,
    kept_claims::KeptClaims,
    section::Section,
    token::Token,
    token_source::TokenSource,
};
use crate::{
    outbound::Outbound,
    settings::{SessionSettings, session::CookieName},
};

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
    Later(LocalBoxFuture<'a, Result<Presented, Fault>>),
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

/// What the gate needs to know of an identity besides its verdicts.
#[derive(Default)]
pub struct Profile<'a> {
    /// Where it finds credentials.
    pub places: Vec<Place<'a>>,
    /// Which credentials in these places address it.
    pub takes: Takes<'a>,
    /// The issuers whose subjects it knows, if it names them.
    pub issuers: Option<&'a Issuers>,
    /// What the ids of its subjects begin with.
    pub subject_prefix: Option<&'a SubjectPrefix>,
    /// For sessions: the identities whose credentials may be exchanged for one.
    pub exchange: Option<&'a [IdentityName]>,
    /// What it remembers.
    pub remembers: Remembers,
}

/// What an identity remembers. Those that remember alike share a budget of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Remembers {
    /// Nothing.
    #[default]
    Nothing,
    /// Tokens that it verified.
    Tokens,
    /// Answers of another service.
    Answers,
}

/// Where an identity finds credentials.
#[derive(PartialEq, Eq)]
pub enum Place<'a> {
    /// `Authorization: Bearer`
    Bearer,
    /// Another header.
    Header(&'a HeaderName),
    /// A cookie.
    Cookie(&'a CookieName),
    /// A header that only trusted proxies can set.
    Forwarded(&'a HeaderName),
    /// The gate's own session cookie.
    Session,
}

impl<'a> From<&'a TokenSource> for Place<'a> {
    fn from(source: &'a TokenSource) -> Self {
        match source {
            TokenSource::Bearer => Self::Bearer,
            TokenSource::Header(name) if *name == AUTHORIZATION => Self::Bearer,
            TokenSource::Header(name) => Self::Header(name),
            TokenSource::Cookie(name) => Self::Cookie(name),
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer => f.write_str("the bearer token"),
            Self::Header(name) | Self::Forwarded(name) => write!(f, "the header `{name}`"),
            Self::Cookie(name) => write!(f, "the cookie `{}`", name.as_str()),
            Self::Session => f.write_str("the session cookie"),
        }
    }
}

/// Which credentials address an identity, where it finds them.
#[derive(Default)]
pub enum Takes<'a> {
    /// All of them.
    #[default]
    All,
    /// Those that no other identity of the same `accept` claims as its own
    /// ([`claims_token`](Identity::claims_token)).
    Others,
    /// JSON Web Tokens of these algorithms and issuers.
    Jwts {
        /// The algorithms.
        algorithms: &'a [Algorithm],
        /// The issuers; `None` for any.
        issuers: Option<&'a Issuers>,
    },
}

impl Takes<'_> {
    /// Whether it takes everything that `other` takes.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) | (Self::Others, Self::Others) => true,
            (
                Self::Jwts {
                    algorithms,
                    issuers,
                },
                Self::Jwts {
                    algorithms: other_algorithms,
                    issuers: other_issuers,
                },
            ) => {
                let has_issuers = match (issuers, other_issuers) {
                    (None, _) => true,
                    (Some(issuers), Some(others)) => issuers.cover(others),
                    (Some(_), None) => false,
                };
                let mut others = other_algorithms.iter();
                has_issuers && others.all(|algorithm| algorithms.contains(algorithm))
            }
            (Self::Others | Self::Jwts { .. }, _) => false,
        }
    }
}
