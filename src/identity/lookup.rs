//! Finds a credential in a request. What stands there twice, or cannot be read, is no credential at all:
//! two readers could take two different ones.

use actix_web::{
    cookie::Cookie,
    http::header::{self, HeaderName},
};
use policies::Denial;

use super::{cross_site::CrossSite, request_view::RequestView};
use crate::settings::identities::TokenSource;

/// Finds the credential in the first of `sources` that has one. One that a browser sends by itself is taken
/// from the gate's own pages and the allowed ones only.
///
/// # Errors
///
/// Why what stands there is no credential.
pub(super) fn credential<'a>(
    request: &'a dyn RequestView,
    sources: &[TokenSource],
    cross_site: &CrossSite,
) -> Result<Option<&'a str>, Denial> {
    for source in sources {
        match find(request, source) {
            Found::Nothing => {}
            Found::Unusable(reason) => return Err(Denial::InvalidCredentials(reason.to_owned())),
            Found::One(credential) => {
                if source.is_sent_by_itself() {
                    cross_site.check(request)?;
                }
                return Ok(Some(credential));
            }
        }
    }
    Ok(None)
}

/// Finds what stands in one place.
pub(super) fn find<'a>(request: &'a dyn RequestView, source: &TokenSource) -> Found<'a> {
    match source {
        TokenSource::Bearer => bearer(request),
        TokenSource::Header(name) => in_header(request, name),
        TokenSource::Cookie(name) => cookie(request, name.as_str()),
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

/// Finds the one header of a name.
fn in_header<'a>(request: &'a dyn RequestView, name: &HeaderName) -> Found<'a> {
    let mut values = request.headers().get_all(name);
    match (values.next(), values.next()) {
        (None, _) => Found::Nothing,
        (Some(_), Some(_)) => Found::Unusable("the header stands there twice"),
        (Some(value), None) => match value.to_str() {
            Ok(text) => Found::One(text.trim()),
            Err(_) => Found::Unusable("the header is not ASCII"),
        },
    }
}

/// Finds the token of `Authorization: Bearer` (RFC 6750). Another scheme is nothing.
fn bearer(request: &dyn RequestView) -> Found<'_> {
    match in_header(request, &header::AUTHORIZATION) {
        Found::One(text) => {
            let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
            if scheme.eq_ignore_ascii_case("bearer") {
                Found::One(token.trim_start())
            } else {
                Found::Nothing
            }
        }
        other => other,
    }
}

/// Finds the one cookie of a name. An empty one is nothing: that is how apps sign out.
pub(super) fn cookie<'a>(request: &'a dyn RequestView, name: &str) -> Found<'a> {
    let mut found = Found::Nothing;
    for header in request.headers().get_all(header::COOKIE) {
        let Ok(text) = std::str::from_utf8(header.as_bytes()) else {
            return Found::Unusable("the cookies are not UTF-8");
        };
        let pairs = text.split(';').map(str::trim_start);
        for cookie in pairs.filter_map(|pair| Cookie::parse(pair).ok()) {
            if cookie.name() != name {
                continue;
            }
            match (cookie.value_raw(), &found) {
                (Some(value), Found::Nothing) if !value.is_empty() => found = Found::One(value),
                (Some(_), Found::One(_)) => {
                    return Found::Unusable("the cookie stands there twice");
                }
                _ => {}
            }
        }
    }
    found
}
