//! What identities read of a request. It may have arrived, or only be described.

use std::net::SocketAddr;

use actix_session::{Session, SessionExt as _};
use actix_web::{
    HttpRequest,
    http::header::{HeaderMap, HeaderName, HeaderValue},
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
