//! What identities read of a request, which a client sent or an operator described.
//!
//! All cookies are read here, so that two parts of the gate never use different ones. Names are compared byte for byte,
//! and nothing is decoded.

use std::net::SocketAddr;

use actix_session::{Session, SessionExt as _};
use actix_web::{
    HttpRequest,
    http::header::{self, HeaderMap, HeaderName, HeaderValue},
};

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

/// The cookies of one name in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cookie<'a> {
    /// None, or only empty ones, which apps set to sign out.
    Absent,
    /// One that is not empty.
    One(&'a [u8]),
    /// More than one. Another site may have set any of them.
    Several,
}

impl<'a> Cookie<'a> {
    /// Finds the cookie of a name.
    #[must_use]
    pub fn find(headers: &'a HeaderMap, name: &str) -> Self {
        let mut values = all_cookies(headers)
            .filter(|(other, value)| *other == name.as_bytes() && !value.is_empty())
            .map(|(_, value)| value);
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => Self::One(value),
            (Some(_), Some(_)) => Self::Several,
        }
    }
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
        for (name, value) in [
            ("a", &b"J\xfcrgen%20"[..]),
            ("b", b"\"q\""),
            ("c", b"x=y"),
            ("d", b"\xff"),
        ] {
            assert_eq!(Cookie::find(headers, name), Cookie::One(value));
        }
        assert_eq!(Cookie::find(headers, "a2"), Cookie::Absent);
    }
}
