//! Logs what the HTTP parser refuses: it answers by itself, before there is a request that a handler could log.

use std::net::SocketAddr;

use memchr::memmem;

use crate::telemetry::REFUSED;

/// The first bytes of a connection, which tell a client that speaks another protocol.
#[derive(Default)]
pub(super) struct FirstBytes(Option<[u8; 4]>);

impl FirstBytes {
    pub(super) fn are_here(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn read(&mut self, bytes: &[u8]) {
        let mut first = [0; 4];
        let length = bytes.len().min(4);
        first[..length].copy_from_slice(&bytes[..length]);
        self.0 = Some(first);
    }

    fn hint(&self) -> Option<&'static str> {
        match self.0? {
            // The type of a handshake record, and the major version.
            [22, 3, ..] => Some("the client speaks TLS; this listener speaks plain HTTP"),
            [b'P', b'R', b'I', b' '] => {
                Some("the client speaks HTTP/2; this listener speaks HTTP/1.1")
            }
            _ => None,
        }
    }
}

/// Logs the response of the parser in `written`, if there is one. Responses of the gate have a request id.
pub(super) fn log(written: &[u8], peer: Option<SocketAddr>, first: &FirstBytes) {
    // It has no body, and it is the last response on its connection.
    if !written.ends_with(b"\r\n\r\n") {
        return;
    }
    let head = memmem::rfind(written, b"HTTP/1.1 ").map(|at| &written[at..]);
    let status = head.and_then(|head| head.get(9..12));
    let reason = match status {
        Some(b"400") => first.hint().unwrap_or("the request is not HTTP/1.1"),
        Some(b"408") => "the head of the request did not arrive in time",
        Some(b"431") => "the head of the request is larger than 128 KiB",
        _ => return,
    };
    if head.is_some_and(|head| memmem::find(head, b"x-request-id: ").is_none()) {
        let status =
            status.and_then(|status| std::str::from_utf8(status).ok()?.parse::<u16>().ok());
        write_line(status, peer, reason);
    }
}

/// Logs a connection that is closed without a response.
pub(super) fn log_close(peer: Option<SocketAddr>, reason: &'static str) {
    write_line(None, peer, reason);
}

fn write_line(status: Option<u16>, peer: Option<SocketAddr>, reason: &'static str) {
    tracing::info!(
        target: REFUSED,
        client = peer.map(|peer| tracing::field::display(peer.ip())),
        status,
        reason,
        "refused by the HTTP parser"
    );
}
