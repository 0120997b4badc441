//! A client's connection that limits the time of requests and the memory of their heads.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{
    connections::Connection, head_budget::HeadReservation, request_framing::RequestFraming,
};

/// How much longer a body may take than a head, so that a handler whose own time limit ends can still respond.
const BODY_MARGIN: Duration = Duration::from_secs(1);

/// How long a connection without a first request stays open when the listener closes: its client may have sent one.
const FIRST_REQUEST: Duration = Duration::from_millis(500);

/// The response if the memory for heads is exhausted.
const TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Fails if a request is not complete within `limit` after its first byte. Ends when its listener closes, between two
/// requests.
pub(super) struct TimedStream<Io> {
    io: Io,
    limit: Duration,
    framing: RequestFraming,
    heads: HeadReservation,
    /// Runs while a request is incomplete. Requests that arrive in one piece need no timer.
    timer: Option<Pin<Box<Sleep>>>,
    is_within_a_body: bool,
    connection: Connection,
    has_received: bool,
}

impl<Io> TimedStream<Io> {
    pub(super) fn new(
        io: Io,
        limit: Duration,
        heads: HeadReservation,
        connection: Connection,
    ) -> Self {
        Self {
            io,
            limit,
            framing: RequestFraming::default(),
            heads,
            timer: None,
            is_within_a_body: false,
            connection,
            has_received: false,
        }
    }

    /// Whether the listener closes and no request is coming.
    fn must_end(&mut self, context: &mut Context<'_>) -> bool {
        if !self.connection.is_closing(context) || self.framing.is_within_a_request() {
            return false;
        }
        if self.has_received {
            return true;
        }
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep(FIRST_REQUEST)));
        timer.as_mut().poll(context).is_ready()
    }

    fn has_timed_out(&mut self, context: &mut Context<'_>) -> bool {
        if !self.framing.is_within_a_request() {
            return false;
        }
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        if self.framing.is_within_a_body() && !self.is_within_a_body {
            self.is_within_a_body = true;
            let deadline = timer.deadline() + BODY_MARGIN;
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(context).is_ready()
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncRead for TimedStream<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = out.filled().len();
        let read = Pin::new(&mut this.io).poll_read(context, out);
        let bytes = &out.filled()[before..];
        if !bytes.is_empty() && !this.has_received {
            this.has_received = true;
            this.timer = None;
        }
        if this.framing.read(bytes) {
            this.timer = None;
            this.is_within_a_body = false;
        }
        if !this.heads.extend_to(this.framing.head_bytes()) {
            // If the socket cannot take the response now, the client only sees the connection close.
            let _ = Pin::new(&mut this.io).poll_write(context, TOO_LARGE);
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        if this.has_timed_out(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if read.is_pending() && this.must_end(context) {
            // As if the client had closed its side: a running request still gets its response.
            return Poll::Ready(Ok(()));
        }
        read
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for TimedStream<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // The gate writes a response only after it has read the head of the request.
        self.framing.reset_head_bytes();
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
