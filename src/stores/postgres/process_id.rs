//! The server process that a connection was told at its start.
//!
//! A server tells its own process. A pooler makes one up, because the process changes. tokio-postgres shows it only in
//! the request that would cancel a query, so this reads it from such a request, which goes nowhere.

use std::{
    future::{Ready, ready},
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::{
    Client,
    tls::{ChannelBinding, TlsConnect, TlsStream},
};

/// The request is its length, a code, the process and a secret, of four bytes each.
const REQUEST_BYTES: usize = 16;

/// `None` if tokio-postgres writes the request in another way.
pub(super) async fn process_id(client: &Client) -> Option<i32> {
    let mut recorder = Recorder(Vec::new());
    let written = client
        .cancel_token()
        .cancel_query_raw(&mut recorder, WithoutTls)
        .await;
    written.ok()?;
    let request = recorder.0.last_chunk::<REQUEST_BYTES>()?;
    let process = request[8..12].try_into().ok()?;
    Some(i32::from_be_bytes(process))
}

/// Records what is written, and agrees to TLS.
struct Recorder(Vec<u8>);

impl AsyncWrite for Recorder {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Recorder {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        buffer.put_slice(b"S");
        Poll::Ready(Ok(()))
    }
}

impl TlsStream for &mut Recorder {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

struct WithoutTls;

impl<'a> TlsConnect<&'a mut Recorder> for WithoutTls {
    type Stream = &'a mut Recorder;
    type Error = io::Error;
    type Future = Ready<io::Result<&'a mut Recorder>>;

    fn connect(self, stream: &'a mut Recorder) -> Self::Future {
        ready(Ok(stream))
    }
}
