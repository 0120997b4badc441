//! The HTTP client of the OTLP exporter.

use std::{thread, time::Duration};

use actix_web::http::{
    Method,
    header::{HeaderName, HeaderValue},
};
use bytes::Bytes;
use opentelemetry_http::HttpError;
use tokio::sync::{mpsc, oneshot};

use super::{
    call::Resend,
    client::{HttpClient, OutboundRequest},
};

const TIMEOUT: Duration = Duration::from_secs(10);

const MAX_RESPONSE_BYTES: usize = 64 * 1024;

type Reply = oneshot::Sender<Result<http::Response<Bytes>, String>>;

/// Sends exports with the gate's own HTTP client, on a thread of its own because the client's connections stay on one
/// thread.
#[derive(Debug)]
pub struct OtlpClient(mpsc::UnboundedSender<(http::Request<Bytes>, Reply)>);

impl OtlpClient {
    #[must_use]
    pub fn start(client: HttpClient) -> Self {
        let (sender, mut exports) = mpsc::unbounded_channel::<(_, Reply)>();
        let run = move || {
            actix_web::rt::System::new().block_on(async move {
                while let Some((request, reply)) = exports.recv().await {
                    // The exporter may have given up.
                    let _ = reply.send(send(&client, request).await);
                }
            });
        };
        // Without the thread every export fails, and the exporter reports that.
        let _ = thread::Builder::new().name("otlp".to_owned()).spawn(run);
        Self(sender)
    }
}

async fn send(
    client: &HttpClient,
    request: http::Request<Bytes>,
) -> Result<http::Response<Bytes>, String> {
    let (head, body) = request.into_parts();
    let headers = head.headers.iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(value.as_bytes()).ok()?))
    });
    let outgoing = OutboundRequest {
        method: Method::POST,
        url: &head.uri.to_string(),
        headers: headers.collect(),
        body,
        timeout: TIMEOUT,
        max_response_bytes: MAX_RESPONSE_BYTES,
        resend: Resend::Unsafe,
    };
    let response = client.send(outgoing).await;
    let response = response.map_err(|error| error.to_string())?;
    http::Response::builder()
        .status(response.status.as_u16())
        .body(response.body)
        .map_err(|error| error.to_string())
}

#[async_trait::async_trait]
impl opentelemetry_http::HttpClient for OtlpClient {
    async fn send_bytes(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, HttpError> {
        let (reply, response) = oneshot::channel();
        self.0.send((request, reply))?;
        response.await?.map_err(HttpError::from)
    }
}
