//! What identities read of a request. It may have arrived, or only be described.

use std::net::SocketAddr;

use actix_session::{Session, SessionExt as _};
use actix_web::{
    HttpRequest,
    http::header::{self, HeaderMap, HeaderName, HeaderValue},
};

/// What a request presents to say who it comes from. Cookies and headers are what the client sent, byte for byte.
pub trait PresentedCredentials {
    /// The headers, cookies included.
    fn headers(&self) -> &HeaderMap;

    /// The address of the peer. `None` for a Unix socket.
    fn peer(&self) -> Option<SocketAddr>;

    /// The session that the session cookie stands for, if sessions were loaded.
    fn session(&self) -> Option<Session>;
}

impl PresentedCredentials for HttpRequest {
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

/// Credentials that no request carries. They have no session.
#[derive(Default)]
pub struct InMemoryCredentials {
    headers: HeaderMap,
    peer: Option<SocketAddr>,
}

impl InMemoryCredentials {
    /// Adds a header, besides others of its name.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Names the peer. Without a name it is this machine.
    #[must_use]
    pub fn from_peer(self, peer: SocketAddr) -> Self {
        Self {
            peer: Some(peer),
            ..self
        }
    }
}

impl PresentedCredentials for InMemoryCredentials {
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

/// What a request has under the name of a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cookie<'a> {
    /// Nothing, or only empty values: that is how apps sign out.
    Absent,
    /// One value.
    One(&'a [u8]),
    /// More than one value. Which of them another site planted cannot be told.
    Several,
}

impl<'a> Cookie<'a> {
    /// Finds the cookie `name`.
    #[must_use]
    pub fn find(headers: &'a HeaderMap, name: &str) -> Self {
        let mut values = all(headers)
            .filter(|(other, value)| *other == name.as_bytes() && !value.is_empty())
            .map(|(_, value)| value);
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => Self::One(value),
            (Some(_), Some(_)) => Self::Several,
        }
    }
}

/// All cookies of a request, each as its name and its value. What has no `=` is no cookie.
pub(super) fn all(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
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
    fn what_is_held_in_memory_is_kept_byte_for_byte() {
        let every_byte: Vec<u8> = (b' '..=u8::MAX).filter(|byte| *byte != 127).collect();
        let header = |bytes: &[u8]| HeaderValue::from_bytes(bytes).expect("headers can carry it");
        let name = HeaderName::from_static("x-key");
        let cookie = b"a=J\xfcrgen%20; b=\"q\"; a2=; c=x=y";
        let presented = InMemoryCredentials::default()
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
