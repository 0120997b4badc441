//! A client's connection with a time limit for requests.

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

use super::request_framing::RequestFraming;

/// How much longer than its head a body may take, so that a handler that waits for it can still answer.
const TIME_TO_ANSWER: Duration = Duration::from_secs(1);

/// A connection that fails if a request is not complete `limit` after its first byte.
pub(super) struct TimedStream<Io> {
    io: Io,
    limit: Duration,
    framing: RequestFraming,
    /// Runs while a request is incomplete. A request that arrives in one piece needs no timer.
    timer: Option<Pin<Box<Sleep>>>,
    is_within_a_body: bool,
}

impl<Io> TimedStream<Io> {
    pub(super) fn new(io: Io, limit: Duration) -> Self {
        Self {
            io,
            limit,
            framing: RequestFraming::default(),
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

impl<Io: AsyncRead + Unpin> AsyncRead for TimedStream<Io> {
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
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
