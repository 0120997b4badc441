//! The connection to a service that awc reads from.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use actix_web::rt::net::{ActixStream, Ready, TcpStream, UnixStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::{
    call::{self, Peer},
    framing::{Framing, FramingError, Head},
    tls_error,
};

/// TCP, TLS over TCP, or a Unix socket of this machine.
pub(crate) type Transport = Either<TcpStream, Either<Box<TlsStream<TcpStream>>, UnixStream>>;

/// Returns only the final response to each request. A connection that receives anything else is not reused.
pub(super) struct Stream {
    transport: Transport,
    /// For messages.
    host: String,
    peer: Arc<Peer>,
    /// The peer's epoch when the connection was opened.
    epoch: u64,
    framing: Framing,
    /// The start of a head, until it is complete.
    buffer: Vec<u8>,
    requests: u64,
    /// Whether bytes arrived that belong to no response.
    has_stray_bytes: bool,
}

impl Stream {
    pub(super) fn new(transport: Transport, host: String, peer: Arc<Peer>) -> Self {
        Self {
            transport,
            host,
            epoch: peer.epoch(),
            peer,
            framing: Framing::Idle,
            buffer: Vec::new(),
            requests: 0,
            has_stray_bytes: false,
        }
    }

    fn socket(&self) -> &dyn ActixStream {
        match &self.transport {
            Either::Left(stream) => stream,
            Either::Right(Either::Left(stream)) => stream.get_ref().0,
            Either::Right(Either::Right(stream)) => stream,
        }
    }

    fn is_idle(&self) -> bool {
        self.framing == Framing::Idle && self.buffer.is_empty()
    }

    /// Whether the next request must not use this connection.
    fn is_stale(&self) -> bool {
        self.has_stray_bytes || (self.requests > 0 && self.epoch != self.peer.epoch())
    }

    /// Parses what was just read into `out` after its first `before` bytes, and removes what awc must not see.
    fn parse_read(&mut self, out: &mut ReadBuf<'_>, before: usize) -> Result<(), FramingError> {
        if self.framing != Framing::Head {
            let read = &out.filled()[before..];
            let taken = self.framing.read_body(read)?;
            self.has_stray_bytes |= taken < read.len();
            out.set_filled(before + taken);
            return Ok(());
        }
        self.buffer.extend_from_slice(&out.filled()[before..]);
        out.set_filled(before);
        loop {
            match Head::parse(&self.buffer)? {
                Head::Partial => return Ok(()),
                Head::Interim(length) => {
                    self.buffer.drain(..length);
                }
                Head::Final(length, framing) => {
                    self.framing = framing;
                    let taken = length + self.framing.read_body(&self.buffer[length..])?;
                    self.has_stray_bytes |= taken < self.buffer.len();
                    self.buffer.truncate(taken);
                    close_delimited(&self.framing, &mut self.buffer[..length]);
                    return Ok(());
                }
            }
        }
    }
}

/// Sets the version to HTTP/1.0: awc reads such a response to the end of the connection, but assumes that an HTTP/1.1
/// response without a length has no body.
fn close_delimited(framing: &Framing, head: &mut [u8]) {
    const VERSION: &[u8] = b"HTTP/1.1";

    if *framing == Framing::UntilClose
        && let Some(at) = head.windows(VERSION.len()).position(|part| part == VERSION)
    {
        head[at + VERSION.len() - 1] = b'0';
    }
}

impl From<FramingError> for io::Error {
    fn from(error: FramingError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.is_idle() && this.is_stale() {
            // Reports the end of the stream, so that the pool drops the connection.
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.framing != Framing::Head && !this.buffer.is_empty() {
                let length = this.buffer.len().min(out.remaining());
                out.put_slice(&this.buffer[..length]);
                this.buffer.drain(..length);
                return Poll::Ready(Ok(()));
            }
            let before = out.filled().len();
            let read = ready!(Pin::new(&mut this.transport).poll_read(context, out));
            read.map_err(|error| tls_error::explain(error, &this.host))?;
            let length = out.filled().len() - before;
            match &this.framing {
                // Between requests a server can only close the connection. If it sends bytes, the pool drops the connection, too.
                Framing::Idle => return Poll::Ready(Ok(())),
                Framing::UntilClose if length == 0 => {
                    this.framing = Framing::Idle;
                    this.has_stray_bytes = true;
                    return Poll::Ready(Ok(()));
                }
                Framing::Head if length == 0 && this.buffer.is_empty() => {
                    return Poll::Ready(Ok(()));
                }
                _ if length == 0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                _ => {}
            }
            this.parse_read(out, before)?;
            if out.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.framing != Framing::Head {
            // The first bytes of a request.
            call::record_connection(this.requests > 0);
            if !this.is_idle() || this.is_stale() {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            }
            this.framing = Framing::Head;
            this.requests += 1;
        }
        let written = ready!(Pin::new(&mut this.transport).poll_write(context, bytes))?;
        if written > 0 {
            call::record_write();
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(context)
    }
}

impl ActixStream for Stream {
    fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        self.socket().poll_read_ready(context)
    }

    fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        self.socket().poll_write_ready(context)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}
