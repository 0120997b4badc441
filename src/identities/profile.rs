//! What the checks of the config need to know about identities: where they look for credentials, and which they accept.

use std::fmt;

use actix_web::http::header::{AUTHORIZATION, HeaderName};
use jsonwebtoken::Algorithm;
use policies::IdentityName;

use super::{
    cookies::CookieSource,
    issuer::{Issuers, SubjectPrefix},
    request_view::TokenSource,
};

/// The identities of a config. An identity with unreadable settings has no profile.
pub(crate) struct Profiles<'a>(pub(super) Vec<(&'a IdentityName, Option<Profile<'a>>)>);

impl Profiles<'_> {
    pub(super) fn find(&self, name: &IdentityName) -> Option<&Profile<'_>> {
        let (_, profile) = self.0.iter().find(|(other, _)| *other == name)?;
        profile.as_ref()
    }

    /// The identity that reads a token from the cookie of this name.
    pub(crate) fn reader_of_cookie(&self, cookie: &str) -> Option<&IdentityName> {
        let reads = |profile: &Profile<'_>| {
            let mut places = profile.places.iter();
            places.any(|place| matches!(place, Place::Cookie(source) if source.name() == cookie))
        };
        let mut profiles = self.0.iter();
        let found = profiles.find(|(_, profile)| profile.as_ref().is_some_and(reads));
        found.map(|(name, _)| *name)
    }

    /// Whether there may be a `session` identity. One with unreadable settings may be one.
    pub(crate) fn may_have_session(&self) -> bool {
        let is_session = |profile: &Profile<'_>| profile.exchange.is_some();
        let mut profiles = self.0.iter();
        profiles.any(|(_, profile)| profile.as_ref().is_none_or(is_session))
    }
}

/// Describes an identity to the checks of the config.
#[derive(Default)]
pub struct Profile<'a> {
    /// Where it looks for credentials.
    pub places: Vec<Place<'a>>,
    /// Which credentials in these places are for it.
    pub accepts: Accepts<'a>,
    /// The issuers of its subjects, if the config names them.
    pub issuers: Option<&'a Issuers>,
    /// The prefix of its subjects' ids.
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

/// Where an identity looks for credentials.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// `Authorization: Bearer`
    Bearer,
    /// Any other header.
    Header(&'a HeaderName),
    /// A cookie.
    Cookie(&'a CookieSource),
    /// A header that the gate accepts only from trusted proxies.
    Forwarded(&'a HeaderName),
    /// The session cookie of the gate.
    Session,
}

impl Place<'_> {
    /// Whether every credential in `other` is also in this place.
    pub(super) fn covers(&self, other: &Place<'_>) -> bool {
        match (self, other) {
            (Self::Cookie(own), Place::Cookie(other)) => own.covers(other),
            _ => self == other,
        }
    }
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
            Self::Cookie(name) => write!(f, "the cookie `{name}`"),
            Self::Session => f.write_str("the session cookie"),
        }
    }
}

/// Which credentials are for an identity.
#[derive(Default)]
pub enum Accepts<'a> {
    /// All of them.
    #[default]
    All,
    /// Those that no other identity of the same `accept` claims ([`claims_token`](super::Identity::claims_token)).
    Unclaimed,
    /// JSON Web Tokens of these algorithms and issuers.
    Jwts {
        algorithms: &'a [Algorithm],
        /// `None` for any.
        issuers: Option<&'a Issuers>,
    },
}

impl Accepts<'_> {
    /// Whether it accepts everything that `other` accepts.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) | (Self::Unclaimed, Self::Unclaimed) => true,
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
            (Self::Unclaimed | Self::Jwts { .. }, _) => false,
        }
    }
}
