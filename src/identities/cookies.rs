//! The cookies of a request.
//!
//! All cookies are read here, so that two parts of the gate never use different ones. Names are compared byte for byte,
//! and no value is decoded, except for the session of Supabase's client library, which holds the token. An empty cookie
//! counts as none, because apps sign out by setting one. A cookie that occurs twice or is unreadable is invalid, because
//! another parser or another site could have set or used a different one.

use std::{borrow::Cow, fmt};

use actix_web::http::header::{self, HeaderMap};
use base64::{
    Engine as _,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use policies::Denial;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::config::session::CookieName;

/// The largest session of which the gate reads the token. It holds a token, which has its own limit, and a description of
/// the user.
const MAX_SESSION_BYTES: usize = 64 * 1024;

/// Starts the value of a cookie that is a session in base64url.
const SESSION_PREFIX: &str = "base64-";

const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A cookie that an identity reads. Libraries split a value that is too large for one cookie into chunks, which have the
/// names `NAME.0`, `NAME.1` and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieSource {
    name: CookieName,
    /// Whether the value may be in chunks.
    is_chunked: bool,
}

/// Which part of the value of a source a cookie holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    /// At most 99, so that the number of cookies is bounded.
    Chunk(usize),
}

impl TryFrom<&str> for CookieSource {
    type Error = &'static str;

    /// Parses `NAME`, or `NAME*` for a value that may be in chunks.
    fn try_from(text: &str) -> Result<Self, Self::Error> {
        let (name, is_chunked) = match text.strip_suffix('*') {
            Some(name) => (name, true),
            None => (text, false),
        };
        if name.contains('*') {
            return Err("`*` is only for chunks, at the end of the cookie's name");
        }
        Ok(Self {
            name: CookieName::try_from(name.to_owned())?,
            is_chunked,
        })
    }
}

impl fmt::Display for CookieSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.is_chunked { "*" } else { "" };
        write!(f, "{}{star}", self.name.as_str())
    }
}

impl CookieSource {
    /// The cookie's name, without `*`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Whether it reads every cookie that `other` reads.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match other.is_chunked {
            true => self == other,
            false => self.part(other.name.as_str().as_bytes()).is_some(),
        }
    }

    /// Whether a value of one may also be a value of the other.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    fn part(&self, cookie: &[u8]) -> Option<Part> {
        let rest = cookie.strip_prefix(self.name.as_str().as_bytes())?;
        match rest {
            [] => Some(Part::Whole),
            [b'.', digit @ b'0'..=b'9'] if self.is_chunked => {
                Some(Part::Chunk(usize::from(digit - b'0')))
            }
            [b'.', tens @ b'1'..=b'9', digit @ b'0'..=b'9'] if self.is_chunked => Some(
                Part::Chunk(usize::from(tens - b'0') * 10 + usize::from(digit - b'0')),
            ),
            _ => None,
        }
    }

    /// Finds the token in the cookie. Joins chunks, and takes the token out of a session.
    pub(super) fn find_token<'a>(
        &self,
        headers: &'a HeaderMap,
    ) -> Result<Option<Cow<'a, str>>, Denial> {
        let value = if self.is_chunked {
            self.join(headers)?
        } else {
            find_cookie(headers, self.name.as_str())?.map(Cow::Borrowed)
        };
        value.map(take_token).transpose()
    }

    /// Returns the whole value. Chunks must be complete, and a value must not be there both whole and in chunks: the app
    /// might use the other one.
    fn join<'a>(&self, headers: &'a HeaderMap) -> Result<Option<Cow<'a, str>>, Denial> {
        let mut parts: Vec<(Part, &[u8])> = select(headers, &[self])?
            .into_iter()
            .filter_map(|(name, value)| Some((self.part(name.as_bytes())?, value)))
            .collect();
        match parts[..] {
            [] => return Ok(None),
            [(Part::Whole, value)] => return Ok(Some(Cow::Borrowed(text(value)?))),
            _ => {}
        }
        if parts.iter().any(|(part, _)| *part == Part::Whole) {
            return Err(invalid(
                "the request has the cookie both whole and in chunks",
            ));
        }
        parts.sort_by_key(|(part, _)| match part {
            Part::Whole => 0,
            Part::Chunk(index) => *index,
        });
        let is_complete = parts
            .iter()
            .enumerate()
            .all(|(index, (part, _))| *part == Part::Chunk(index));
        if !is_complete {
            return Err(invalid("the request lacks a chunk of the cookie"));
        }
        let chunks: Vec<_> = parts.iter().map(|(_, value)| *value).collect();
        let joined = text(&chunks.concat())?.to_owned();
        Ok(Some(Cow::Owned(joined)))
    }
}

/// Returns the name and the value of each cookie that one of `sources` reads, in the order of the request. The values may
/// have any bytes.
///
/// # Errors
///
/// [`Denial::InvalidCredentials`] if a name occurs twice.
pub(super) fn select<'a>(
    headers: &'a HeaderMap,
    sources: &[&CookieSource],
) -> Result<Vec<(&'a str, &'a [u8])>, Denial> {
    let mut selected: Vec<(&str, &[u8])> = Vec::new();
    for (name, value) in all_cookies(headers) {
        if value.is_empty() || sources.iter().all(|source| source.part(name).is_none()) {
            continue;
        }
        // A name that a source reads is ASCII.
        let Ok(name) = std::str::from_utf8(name) else {
            continue;
        };
        if selected.iter().any(|(other, _)| *other == name) {
            return Err(invalid("the request has the credential twice"));
        }
        selected.push((name, value));
    }
    Ok(selected)
}

/// Finds the cookie of a name. Other cookies may have any bytes.
///
/// # Errors
///
/// [`Denial::InvalidCredentials`] if the request has several such cookies, or one that is not UTF-8.
pub fn find_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Denial> {
    let cookies = all_cookies(headers).filter(|(other, _)| *other == name.as_bytes());
    let value = single_value(cookies.map(|(_, value)| value))?;
    value.map(text).transpose()
}

fn text(value: &[u8]) -> Result<&str, Denial> {
    std::str::from_utf8(value).map_err(|_| invalid("the credential is not UTF-8"))
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

/// Takes the access token out of a session of Supabase's client library: `base64-`, and then JSON in base64url.
fn take_token(value: Cow<'_, str>) -> Result<Cow<'_, str>, Denial> {
    let Some(encoded) = value.strip_prefix(SESSION_PREFIX) else {
        return Ok(value);
    };
    if encoded.len() > MAX_SESSION_BYTES {
        return Err(invalid("the session in the cookie is too long"));
    }
    let session = BASE64URL.decode(encoded).ok();
    let token = session.and_then(|json| serde_json::from_slice::<SessionToken>(&json).ok());
    match token {
        Some(SessionToken(token)) if !token.is_empty() && token.is_ascii() => Ok(token.into()),
        _ => Err(invalid("the session in the cookie has no access token")),
    }
}

/// The access token of a session: the member `access_token` of an object, or the first element of a list.
struct SessionToken(String);

impl<'de> Deserialize<'de> for SessionToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SessionVisitor)
    }
}

struct SessionVisitor;

impl<'de> Visitor<'de> for SessionVisitor {
    type Value = SessionToken;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a session")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<SessionToken, A::Error> {
        let mut token = None;
        while let Some(name) = members.next_key::<Cow<'_, str>>()? {
            if name != "access_token" {
                members.next_value::<IgnoredAny>()?;
            } else if token.replace(members.next_value()?).is_some() {
                return Err(A::Error::duplicate_field("access_token"));
            }
        }
        token
            .map(SessionToken)
            .ok_or_else(|| A::Error::missing_field("access_token"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<SessionToken, A::Error> {
        let token = elements.next_element()?;
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        token
            .map(SessionToken)
            .ok_or_else(|| A::Error::invalid_length(0, &self))
    }
}

/// Returns the one value that is not empty.
pub(super) fn single_value<'a>(
    values: impl Iterator<Item = &'a [u8]>,
) -> Result<Option<&'a [u8]>, Denial> {
    let mut values = values.filter(|value| !value.is_empty());
    match (values.next(), values.next()) {
        (Some(_), Some(_)) => Err(invalid("the request has the credential twice")),
        (value, _) => Ok(value),
    }
}

pub(super) fn invalid(reason: &str) -> Denial {
    Denial::InvalidCredentials(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{COOKIE, HeaderName, HeaderValue};

    use super::*;
    use crate::identities::{InMemoryRequest, RequestView as _};

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

    #[test]
    fn a_source_covers_the_cookies_that_it_reads() {
        let source = |text| CookieSource::try_from(text).expect("it is valid");
        let (whole, chunked, chunk) = (source("sid"), source("sid*"), source("sid.1"));
        assert!(chunked.covers(&whole) && chunked.covers(&chunk) && chunked.covers(&chunked));
        assert!(!whole.covers(&chunked) && !chunk.covers(&chunked) && !whole.covers(&chunk));
        assert!(chunk.overlaps(&chunked) && whole.overlaps(&chunked) && !whole.overlaps(&chunk));
        for other in ["sid.01", "sid.100", "sid.x", "sid2", "sid.", "Sid"] {
            assert!(!chunked.covers(&source(other)), "{other}");
        }
        for wrong in ["", "*", "si*d", "sid**", "a b*"] {
            assert!(CookieSource::try_from(wrong).is_err(), "{wrong}");
        }
    }
}
