//! Finds a credential in a request. What stands there twice, or cannot be read, is no credential at all:
//! two readers could take two different ones.

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderName},
};
use policies::Denial;

use super::{
    cookies::Cookie,
    cross_site::{CrossSite, is_sent_by_itself},
};
use crate::settings::identities::TokenSource;

/// Finds the credential in the first of `sources` that has one. One that a browser sends by itself is taken
/// from the gate's own pages and the allowed ones only; `ambient` says whether headers may be such credentials.
///
/// # Errors
///
/// Why what stands there is no credential.
pub(super) fn credential<'a>(
    request: &'a HttpRequest,
    sources: &[TokenSource],
    ambient: bool,
    cross_site: &CrossSite,
) -> Result<Option<&'a str>, Denial> {
    for source in sources {
        match find(request, source) {
            Found::Nothing => {}
            Found::Unusable(reason) => return Err(Denial::InvalidCredentials(reason.to_owned())),
            Found::One(credential) => {
                if is_sent_by_itself(source, credential, ambient) {
                    cross_site.check(request)?;
                }
                return Ok(Some(credential));
            }
        }
    }
    Ok(None)
}

/// Finds what stands in one place.
pub(super) fn find<'a>(request: &'a HttpRequest, source: &TokenSource) -> Found<'a> {
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
fn in_header<'a>(request: &'a HttpRequest, name: &HeaderName) -> Found<'a> {
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
fn bearer(request: &HttpRequest) -> Found<'_> {
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

/// Finds the one cookie of a name.
pub(super) fn cookie<'a>(request: &'a HttpRequest, name: &str) -> Found<'a> {
    match Cookie::find(request.headers(), name) {
        Cookie::Absent => Found::Nothing,
        Cookie::Several => Found::Unusable("the cookie stands there twice"),
        Cookie::One(value) => match std::str::from_utf8(value) {
            Ok(value) => Found::One(value),
            Err(_) => Found::Unusable("the cookie is not UTF-8"),
        },
    }
}
