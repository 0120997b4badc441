//! Where a request may hold a credential, and how it is found there. An empty one is nothing: apps sign out by it. One
//! that is there twice, or cannot be read, is unusable: two readers could take two different ones.

use actix_web::http::header::{self, AUTHORIZATION, HeaderName};
use schemars::JsonSchema;
use serde::Deserialize;

use super::request_view::{Cookie, PresentedCredentials};
use crate::config::session::CookieName;

/// The places of an identity that names none: the bearer token.
pub(super) fn default_from() -> Vec<TokenSource> {
    vec![TokenSource::Bearer]
}

/// Whether headers may hold what a browser or a proxy adds by itself, if an identity does not say.
pub(super) const fn default_ambient() -> bool {
    true
}

/// Where a credential is looked for: `"bearer"`, `"cookie:NAME"` or `"header:NAME"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", inline)]
pub enum TokenSource {
    /// `Authorization: Bearer` (RFC 6750).
    Bearer,
    /// A cookie, which a browser sends by itself.
    Cookie(CookieName),
    /// A header of its own.
    Header(HeaderName),
}

impl TokenSource {
    /// Whether both are the same header or cookie.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bearer, Self::Header(name)) | (Self::Header(name), Self::Bearer) => {
                *name == AUTHORIZATION
            }
            _ => self == other,
        }
    }
}

impl TryFrom<String> for TokenSource {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fault = || format!("`{text}` must be \"bearer\", \"cookie:NAME\" or \"header:NAME\"");
        if text == "bearer" {
            Ok(Self::Bearer)
        } else if let Some(name) = text.strip_prefix("cookie:") {
            let name = CookieName::try_from(name.to_owned()).map_err(|_| fault())?;
            Ok(Self::Cookie(name))
        } else if let Some(name) = text.strip_prefix("header:") {
            let name: HeaderName = name.parse().map_err(|_| fault())?;
            if name == header::COOKIE {
                // Read as a header it would pass the cross-site check, and hold every other cookie, too.
                return Err("write \"cookie:NAME\" for a cookie, not \"header:cookie\"".to_owned());
            }
            Ok(Self::Header(name))
        } else {
            Err(fault())
        }
    }
}

/// What was found under a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// Nothing.
    Nothing,
    /// One text.
    One(&'a str),
    /// Something that cannot be used, and why.
    Unusable(&'static str),
}

/// Finds the token in one place. In a header of its own, `Bearer ` may stand before it.
pub(super) fn token<'a>(
    presented: &'a dyn PresentedCredentials,
    source: &TokenSource,
) -> Found<'a> {
    match source {
        TokenSource::Header(name) => {
            in_header(values(presented, name).map(|value| after_bearer(value).unwrap_or(value)))
        }
        TokenSource::Bearer | TokenSource::Cookie(_) => find(presented, source),
    }
}

/// Finds the credential in one place, as it was sent.
pub(super) fn find<'a>(presented: &'a dyn PresentedCredentials, source: &TokenSource) -> Found<'a> {
    match source {
        // Another scheme is nothing.
        TokenSource::Bearer => {
            in_header(values(presented, &header::AUTHORIZATION).filter_map(after_bearer))
        }
        TokenSource::Header(name) => in_header(values(presented, name)),
        TokenSource::Cookie(name) => cookie(presented, name.as_str()),
    }
}

/// Finds the one cookie of a name. Other cookies do not matter, whatever their bytes are.
pub(super) fn cookie<'a>(presented: &'a dyn PresentedCredentials, name: &str) -> Found<'a> {
    match Cookie::find(presented.headers(), name) {
        Cookie::Absent => Found::Nothing,
        Cookie::Several => Found::Unusable("the credential is there twice"),
        Cookie::One(value) => text(value),
    }
}

fn values<'a>(
    presented: &'a dyn PresentedCredentials,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> {
    let values = presented.headers().get_all(name);
    values.map(|value| value.as_bytes().trim_ascii())
}

/// What follows the scheme `Bearer` (RFC 6750).
fn after_bearer(value: &[u8]) -> Option<&[u8]> {
    let scheme = value.split(|byte| *byte == b' ').next()?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer");
    is_bearer.then(|| value[scheme.len()..].trim_ascii())
}

/// The one value that is not empty.
fn in_header<'a>(values: impl Iterator<Item = &'a [u8]>) -> Found<'a> {
    let mut values = values.filter(|value| !value.is_empty());
    match (values.next(), values.next()) {
        (None, _) => Found::Nothing,
        (Some(_), Some(_)) => Found::Unusable("the credential is there twice"),
        (Some(value), None) => match text(value) {
            Found::One(text) if !text.is_ascii() => Found::Unusable("the credential is not ASCII"),
            found => found,
        },
    }
}

fn text(value: &[u8]) -> Found<'_> {
    match std::str::from_utf8(value) {
        Ok(text) => Found::One(text),
        Err(_) => Found::Unusable("the credential is not UTF-8"),
    }
}
