//! The places that may hold a credential, and how the gate finds it there.
//!
//! An empty credential counts as none, because apps sign out by setting one. A credential that occurs twice or is
//! unreadable is invalid, because another parser could use a different one.

use actix_web::http::header::{self, AUTHORIZATION, HeaderName};
use schemars::JsonSchema;
use serde::Deserialize;

use super::request_view::{Cookie, RequestView};
use crate::config::session::CookieName;

pub(super) fn default_from() -> Vec<TokenSource> {
    vec![TokenSource::Bearer]
}

pub(super) const fn default_ambient() -> bool {
    true
}

/// The place of a credential: `"bearer"`, `"cookie:NAME"` or `"header:NAME"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", inline)]
pub enum TokenSource {
    /// `Authorization: Bearer` (RFC 6750).
    Bearer,
    /// A cookie.
    Cookie(CookieName),
    /// Any other header.
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
                // As a header it would skip the cross-site check and hold all cookies.
                return Err("write \"cookie:NAME\" for a cookie, not \"header:cookie\"".to_owned());
            }
            Ok(Self::Header(name))
        } else {
            Err(fault())
        }
    }
}

/// What a place holds.
pub(super) enum Found<T> {
    Nothing,
    One(T),
    /// A credential that the gate must not use, and why.
    Invalid(&'static str),
}

impl<T> Found<T> {
    pub(super) fn map<U>(self, map: impl FnOnce(T) -> U) -> Found<U> {
        match self {
            Self::Nothing => Found::Nothing,
            Self::One(value) => Found::One(map(value)),
            Self::Invalid(reason) => Found::Invalid(reason),
        }
    }
}

/// Finds a token. In a header other than `Authorization`, `Bearer ` may precede it.
pub(super) fn find_token<'a>(view: &'a dyn RequestView, source: &TokenSource) -> Found<&'a str> {
    match source {
        TokenSource::Header(name) => {
            let values = header_values(view, name);
            single_value(values.map(|value| strip_bearer(value).unwrap_or(value)))
        }
        TokenSource::Bearer | TokenSource::Cookie(_) => find_credential(view, source),
    }
}

/// Finds a credential, as the client sent it.
pub(super) fn find_credential<'a>(
    view: &'a dyn RequestView,
    source: &TokenSource,
) -> Found<&'a str> {
    match source {
        // A credential of another scheme counts as none.
        TokenSource::Bearer => {
            single_value(header_values(view, &header::AUTHORIZATION).filter_map(strip_bearer))
        }
        TokenSource::Header(name) => single_value(header_values(view, name)),
        TokenSource::Cookie(name) => find_cookie(view, name.as_str()),
    }
}

/// Other cookies may have any bytes.
pub(super) fn find_cookie<'a>(view: &'a dyn RequestView, name: &str) -> Found<&'a str> {
    match Cookie::find(view.headers(), name) {
        Cookie::Absent => Found::Nothing,
        Cookie::Several => Found::Invalid("the request has the credential twice"),
        Cookie::One(value) => parse_utf8(value),
    }
}

fn header_values<'a>(
    view: &'a dyn RequestView,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> {
    let values = view.headers().get_all(name);
    values.map(|value| value.as_bytes().trim_ascii())
}

/// Returns what follows the scheme `Bearer` (RFC 6750).
fn strip_bearer(value: &[u8]) -> Option<&[u8]> {
    let scheme = value.split(|byte| *byte == b' ').next()?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer");
    is_bearer.then(|| value[scheme.len()..].trim_ascii())
}

/// Returns the one value that is not empty.
fn single_value<'a>(values: impl Iterator<Item = &'a [u8]>) -> Found<&'a str> {
    let mut values = values.filter(|value| !value.is_empty());
    match (values.next(), values.next()) {
        (None, _) => Found::Nothing,
        (Some(_), Some(_)) => Found::Invalid("the request has the credential twice"),
        (Some(value), None) => match parse_utf8(value) {
            Found::One(text) if !text.is_ascii() => Found::Invalid("the credential is not ASCII"),
            found => found,
        },
    }
}

fn parse_utf8(value: &[u8]) -> Found<&str> {
    match std::str::from_utf8(value) {
        Ok(text) => Found::One(text),
        Err(_) => Found::Invalid("the credential is not UTF-8"),
    }
}
