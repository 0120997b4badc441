//! What the identities read of a request, so that one which is only described can be judged as one that arrived.

use std::net::SocketAddr;

use actix_session::{Session, SessionExt as _};
use actix_web::{HttpRequest, http::header::HeaderMap};

/// A request, as far as credentials go.
pub trait RequestView {
    /// Its headers.
    fn headers(&self) -> &HeaderMap;

    /// The address that it came from; none if that is a Unix socket.
    fn peer_addr(&self) -> Option<SocketAddr>;

    /// The session that its cookie stands for, if sessions were looked up.
    fn session(&self) -> Option<Session>;
}

impl RequestView for HttpRequest {
    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer_addr()
    }

    fn session(&self) -> Option<Session> {
        Some(self.get_session())
    }
}
