//! What identities read of a request, which a client sent or an operator described: its headers, and the credentials in
//! them.
//!
//! An empty credential counts as none. A credential that occurs twice or is unreadable is invalid, because another parser
//! or another site could have set or used a different one.

use std::{borrow::Cow, net::SocketAddr};

use actix_session::{Session, SessionExt as _};
use actix_web::{
    HttpRequest,
    http::header::{self, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
};
use policies::Denial;
use schemars::JsonSchema;
use serde::Deserialize;

use super::cookies::{CookieSource, invalid, single_value};

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

/// The place of a credential: `"bearer"`, `"cookie:NAME"` or `"header:NAME"`. `"cookie:NAME*"` is a cookie whose value
/// may be in chunks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", inline)]
#[schemars(extend("examples" = ["bearer"]))]
pub enum TokenSource {
    /// `Authorization: Bearer` (RFC 6750).
    Bearer,
    /// A cookie.
    Cookie(CookieSource),
    /// Any other header.
    Header(HeaderName),
}

impl TokenSource {
    /// Whether both are the same header, or a cookie may be for both.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bearer, Self::Header(name)) | (Self::Header(name), Self::Bearer) => {
                *name == AUTHORIZATION
            }
            (Self::Cookie(own), Self::Cookie(other)) => own.overlaps(other),
            _ => self == other,
        }
    }

    /// Whether a browser may have sent the credential `value` by itself, or a proxy may have derived it from one that a
    /// browser sent. This holds for cookies, for headers of an `ambient` identity, and for the schemes of `Authorization`
    /// for which browsers show a dialog.
    pub(super) fn is_ambient(&self, value: impl AsRef<[u8]>, ambient: bool) -> bool {
        match self {
            Self::Bearer => false,
            Self::Cookie(_) => true,
            Self::Header(name) if *name == AUTHORIZATION => {
                let mut parts = value.as_ref().split(|byte| *byte == b' ');
                let scheme = parts.next().unwrap_or_default();
                let mut schemes = BROWSER_SCHEMES.iter();
                schemes.any(|known| scheme.eq_ignore_ascii_case(known.as_bytes()))
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
            let cookie =
                CookieSource::try_from(name).map_err(|reason| format!("`{text}` {reason}"))?;
            Ok(Self::Cookie(cookie))
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
) -> Result<Option<Cow<'a, str>>, Denial> {
    let found = match source {
        TokenSource::Bearer => find_bearer(headers),
        TokenSource::Header(name) => {
            let values = header_values(headers, name);
            single_ascii(values.map(|value| strip_bearer(value).unwrap_or(value)))
        }
        TokenSource::Cookie(cookie) => return cookie.find_token(headers),
    };
    Ok(found?.map(Cow::Borrowed))
}

/// Finds a bearer token. A credential of another scheme counts as none.
fn find_bearer(headers: &HeaderMap) -> Result<Option<&str>, Denial> {
    single_ascii(header_values(headers, &AUTHORIZATION).filter_map(strip_bearer))
}

/// Finds the value of a header, as the client sent it. It may have any bytes.
pub(super) fn find_header<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a [u8]>, Denial> {
    single_value(header_values(headers, name))
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
    let text = single_value(values)?.map(|value| match std::str::from_utf8(value) {
        Ok(text) if text.is_ascii() => Ok(text),
        _ => Err(invalid("the credential is not ASCII")),
    });
    text.transpose()
}
