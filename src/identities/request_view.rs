//! What identities read of a request, which a client sent or an operator described: its headers, and the credentials in
//! them.
//!
//! All cookies are read here, so that two parts of the gate never use different ones. Names are compared byte for byte,
//! and nothing is decoded. An empty credential counts as none, because apps sign out by setting one. A credential that
//! occurs twice or is unreadable is invalid, because another parser or another site could have set or used a different
//! one.

use std::net::SocketAddr;

use actix_session::{Session, SessionExt as _};
use actix_web::{
    HttpRequest,
    http::header::{self, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
};
use policies::Denial;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::session::CookieName;

/// What identities read of a request. Cookies and headers are what the client sent, byte for byte.
pub trait RequestView {
    /// Includes the `Cookie` headers.
    fn headers(&self) -> &HeaderMap;

    /// `None` for a Unix socket.
    fn peer(&self) -> Option<SocketAddr>;

    /// The session of the session cookie, if sessions are enabled.
    fn session(&self) -> Option<Session>;
}

impl RequestView for HttpRequest {
    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn peer(&self) -> Option<SocketAddr> {
        self.peer_addr()
    }

    fn session(&self) -> Option<Session> {
        Some(self.get_session())
    }
}

/// A request that no client sent. It has no session.
#[derive(Default)]
pub struct InMemoryRequest {
    headers: HeaderMap,
    peer: Option<SocketAddr>,
}

impl InMemoryRequest {
    /// Adds a header, and keeps others of the same name.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Without a peer, the request comes from a Unix socket.
    #[must_use]
    pub fn from_peer(self, peer: SocketAddr) -> Self {
        Self {
            peer: Some(peer),
            ..self
        }
    }
}

impl RequestView for InMemoryRequest {
    fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    fn session(&self) -> Option<Session> {
        None
    }
}

pub(super) fn default_from() -> Vec<TokenSource> {
    vec![TokenSource::Bearer]
}

pub(super) const fn default_ambient() -> bool {
    true
}

/// Schemes of `Authorization` whose credentials browsers store and send by themselves.
const BROWSER_SCHEMES: [&str; 4] = ["basic", "digest", "negotiate", "ntlm"];

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

    /// Whether a browser may have sent the credential `value` by itself, or a proxy may have derived it from one that a
    /// browser sent. This holds for cookies, for headers of an `ambient` identity, and for the schemes of `Authorization`
    /// for which browsers show a dialog.
    pub(super) fn is_ambient(&self, value: &str, ambient: bool) -> bool {
        match self {
            Self::Bearer => false,
            Self::Cookie(_) => true,
            Self::Header(name) if *name == AUTHORIZATION => {
                let scheme = value.split(' ').next().unwrap_or_default();
                let mut schemes = BROWSER_SCHEMES.iter();
                schemes.any(|known| scheme.eq_ignore_ascii_case(known))
            }
            Self::Header(_) => ambient,
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

/// Finds a token. In a header other than `Authorization`, `Bearer ` may precede it.
pub(super) fn find_token<'a>(
    headers: &'a HeaderMap,
    source: &TokenSource,
) -> Result<Option<&'a str>, Denial> {
    match source {
        TokenSource::Header(name) => {
            let values = header_values(headers, name);
            single_ascii(values.map(|value| strip_bearer(value).unwrap_or(value)))
        }
        TokenSource::Bearer | TokenSource::Cookie(_) => find_credential(headers, source),
    }
}

/// Finds a credential, as the client sent it.
pub(super) fn find_credential<'a>(
    headers: &'a HeaderMap,
    source: &TokenSource,
) -> Result<Option<&'a str>, Denial> {
    match source {
        // A credential of another scheme counts as none.
        TokenSource::Bearer => {
            single_ascii(header_values(headers, &AUTHORIZATION).filter_map(strip_bearer))
        }
        TokenSource::Header(name) => single_ascii(header_values(headers, name)),
        TokenSource::Cookie(name) => find_cookie(headers, name.as_str()),
    }
}

/// Finds the cookie of a name. Other cookies may have any bytes.
///
/// # Errors
///
/// [`Denial::InvalidCredentials`] if the request has several such cookies, or one that is not UTF-8.
pub fn find_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Denial> {
    let cookies = all_cookies(headers).filter(|(other, _)| *other == name.as_bytes());
    single_value(cookies.map(|(_, value)| value))
}

/// Returns the name and the value of each cookie, and skips pairs without `=`.
fn all_cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers
        .get_all(header::COOKIE)
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| {
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            let (name, value) = pair.split_at(equals);
            Some((name.trim_ascii(), value[1..].trim_ascii()))
        })
}

fn header_values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let values = headers.get_all(name);
    values.map(|value| value.as_bytes().trim_ascii())
}

/// Returns what follows the scheme `Bearer` (RFC 6750).
fn strip_bearer(value: &[u8]) -> Option<&[u8]> {
    let scheme = value.split(|byte| *byte == b' ').next()?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer");
    is_bearer.then(|| value[scheme.len()..].trim_ascii())
}

fn single_ascii<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Option<&'a str>, Denial> {
    match single_value(values) {
        Ok(Some(text)) if !text.is_ascii() => Err(invalid("the credential is not ASCII")),
        found => found,
    }
}

/// Returns the one value that is not empty.
fn single_value<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Option<&'a str>, Denial> {
    let mut values = values.filter(|value| !value.is_empty());
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(invalid("the request has the credential twice")),
        (Some(value), None) => match std::str::from_utf8(value) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(invalid("the credential is not UTF-8")),
        },
    }
}

fn invalid(reason: &str) -> Denial {
    Denial::InvalidCredentials(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::COOKIE;

    use super::*;

    #[test]
    fn a_request_in_memory_keeps_every_byte() {
        let every_byte: Vec<u8> = (b' '..=u8::MAX).filter(|byte| *byte != 127).collect();
        let header = |bytes: &[u8]| HeaderValue::from_bytes(bytes).expect("headers can carry it");
        let name = HeaderName::from_static("x-key");
        let cookie = b"a=J\xfcrgen%20; b=\"q\"; a2=; c=x=y";
        let presented = InMemoryRequest::default()
            .with_header(name.clone(), header(&every_byte))
            .with_header(name.clone(), header(b"second"))
            .with_header(COOKIE, header(cookie))
            .with_header(COOKIE, header(b"d=\xff"));
        let headers = presented.headers();
        let values: Vec<_> = headers.get_all(name).map(HeaderValue::as_bytes).collect();
        assert_eq!(values, [&*every_byte, b"second"]);
        let cookies: Vec<_> = all_cookies(headers).collect();
        let expected = [
            (&b"a"[..], &b"J\xfcrgen%20"[..]),
            (b"b", b"\"q\""),
            (b"a2", b""),
            (b"c", b"x=y"),
            (b"d", b"\xff"),
        ];
        assert_eq!(cookies, expected);
        assert_eq!(find_cookie(headers, "a2"), Ok(None));
    }
}
