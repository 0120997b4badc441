//! A listener that serves, and how it stops without cutting a request.

use std::{io, net::SocketAddr, time::Duration};

use actix_web::dev::{Server, ServerHandle};
use futures_util::future::LocalBoxFuture;
use socket2::Socket;

use super::connections::Connections;
use crate::outbound::reason;

pub(super) const BACKLOG: i32 = 2048;

/// How often a closing listener looks at its connections.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How long the acceptor's thread and the workers may take to hand over what has been accepted.
const HANDOVER: Duration = Duration::from_millis(50);

/// Serves connections that no worker accepted, on this thread.
pub(super) type ServeHere = Box<dyn Fn(Vec<Socket>) -> LocalBoxFuture<'static, io::Result<()>>>;

pub(crate) struct Listener {
    pub(super) server: Server,
    /// `None` for a Unix socket.
    pub(super) address: Option<SocketAddr>,
    pub(super) closer: Closer,
}

/// Closes a listener.
pub(crate) struct Closer {
    pub(super) server: ServerHandle,
    /// A second handle of the listening socket.
    pub(super) socket: Socket,
    pub(super) connections: Connections,
    pub(super) serve_here: ServeHere,
}

impl Listener {
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The future that serves, and the means to end it.
    pub(crate) fn split(self) -> (Server, Closer) {
        (self.server, self.closer)
    }
}

impl Closer {
    /// Refuses new connections, closes those without a request, and waits until the others have ended.
    ///
    /// actix-server would drop connections that it has accepted and not handed over, and those in the backlog. So it
    /// only pauses, and this serves the rest of the backlog before it shuts the socket down.
    pub(crate) async fn close(&self) {
        self.server.pause().await;
        tokio::time::sleep(HANDOVER).await;
        // At most as many as can wait, because clients may connect faster than this accepts.
        let waiting = (0..BACKLOG).map_while(|_| self.socket.accept().ok());
        let waiting = waiting.map(|(socket, _)| socket).collect();
        if let Err(error) = self.socket.shutdown(std::net::Shutdown::Both) {
            let error = reason(&error, "");
            tracing::debug!(error, "cannot shut the listening socket down");
        }
        if let Err(error) = (self.serve_here)(waiting).await {
            let error = reason(&error, "");
            tracing::warn!(error, "cannot serve the last connections");
        }
        self.connections.close();
        while self.connections.count() > 0 {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Ends the workers, and with them every connection that is still open.
    pub(crate) async fn stop(&self) {
        self.server.stop(false).await;
    }
}
