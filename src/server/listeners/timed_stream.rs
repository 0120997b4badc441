//! A client's connection, whose requests are limited in time, and their heads in memory.

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

use super::{head_budget::HeadRoom, request_framing::RequestFraming};

/// How much longer than its head a body may take, so that a handler that waits for it can still answer.
const TIME_TO_ANSWER: Duration = Duration::from_secs(1);

/// What a client reads whose head finds no room.
const TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// A connection that fails if a request is not complete `limit` after its first byte.
pub(super) struct TimedStream<Io> {
    io: Io,
    limit: Duration,
    framing: RequestFraming,
    room: HeadRoom,
    /// Runs while a request is incomplete. Requests that arrive in one piece never make one.
    timer: Option<Pin<Box<Sleep>>>,
    is_within_a_body: bool,
}

impl<Io> TimedStream<Io> {
    pub(super) fn new(io: Io, limit: Duration, room: HeadRoom) -> Self {
        Self {
            io,
            limit,
            framing: RequestFraming::default(),
            room,
            timer: None,
            is_within_a_body: false,
        }
    }

    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        if !self.framing.is_within_a_request() {
            return false;
        }
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        if self.framing.is_within_a_body() && !self.is_within_a_body {
            self.is_within_a_body = true;
            let deadline = timer.deadline() + TIME_TO_ANSWER;
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
        if this.framing.read(bytes) {
            this.timer = None;
            this.is_within_a_body = false;
        }
        if !this.room.hold(this.framing.head_bytes()) {
            // If the client does not read at once, it learns nothing.
            let _ = Pin::new(&mut this.io).poll_write(context, TOO_LARGE);
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        if this.is_late(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
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
        // A response is written when its request's head was read.
        self.framing.forget_heads();
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
