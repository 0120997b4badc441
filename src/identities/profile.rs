//! What the config's checks need to know of identities: where they find credentials, and which of them address one.

use std::fmt;

use actix_web::http::header::{AUTHORIZATION, HeaderName};
use jsonwebtoken::Algorithm;
use policies::IdentityName;

use super::{
    credential::TokenSource,
    issuer::{Issuers, SubjectPrefix},
};
use crate::config::{session::CookieName, suggestion::unknown};

/// The identities of a config: each with its profile, if its settings could be read.
pub(crate) struct Profiles<'a>(pub(super) Vec<(&'a IdentityName, Option<Profile<'a>>)>);

impl Profiles<'_> {
    /// The error about `name` if the config has no such identity.
    pub(super) fn unknown(&self, name: &IdentityName) -> Option<String> {
        let known = self.0.iter().map(|(name, _)| name.as_str());
        (!known.clone().any(|known| known == name.as_str()))
            .then(|| unknown("identity", name.as_str(), known))
    }

    pub(super) fn find(&self, name: &IdentityName) -> Option<&Profile<'_>> {
        let (_, profile) = self.0.iter().find(|(other, _)| *other == name)?;
        profile.as_ref()
    }

    /// Whether one may be a session: what could not be read may be one.
    pub(crate) fn may_have_session(&self) -> bool {
        let is_session = |profile: &Profile<'_>| profile.exchange.is_some();
        let mut profiles = self.0.iter();
        profiles.any(|(_, profile)| profile.as_ref().is_none_or(is_session))
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
    /// The cache that it has.
    pub cache: Option<CacheKind>,
}

/// What an identity caches. All caches of a kind share a limit of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheKind {
    /// Tokens that it verified.
    Tokens,
    /// Responses of another service.
    Responses,
}

/// Where an identity finds credentials.
#[derive(Clone, Copy, PartialEq, Eq)]
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
    /// ([`claims_token`](super::Identity::claims_token)).
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
