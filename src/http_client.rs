//! The HTTP client that asks other services who someone is and what they may: bounded in time and size, follows no redirect,
//! and takes no proxy from the environment.

use std::{
    cell::RefCell,
    sync::{Arc, Weak},
    time::Duration,
};

use actix_web::http::{
    Method, StatusCode, Version,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use awc::{
    Connector,
    error::{ConnectError, PayloadError, SendRequestError},
};
use bytes::Bytes;
use policies::Clock;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

use crate::{settings::outbound::ExtraAuthorities, telemetry::Metrics};

/// What the gate calls itself.
pub const USER_AGENT: &str = concat!("imgwire-gate/", env!("CARGO_PKG_VERSION"));

/// How many connections a worker has to one service at most.
const MAX_CONNECTIONS: usize = 128;

/// How long an idle connection is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

thread_local! {
    /// The clients of this thread, for awc's stay on the thread that made them: one for each gate.
    static CLIENTS: RefCell<Vec<(Weak<ClientConfig>, awc::Client)>> = const { RefCell::new(Vec::new()) };
}

/// The shared client.
#[derive(Clone)]
pub struct HttpClient {
    tls: Arc<ClientConfig>,
}

/// What all share that ask other services.
#[derive(Clone)]
pub struct Outbound {
    /// The client that they ask with.
    pub http: HttpClient,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// A request to another service.
pub struct Outgoing<'a> {
    /// Its method.
    pub method: Method,
    /// Its URL.
    pub url: &'a str,
    /// Its headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body; nothing where it is empty.
    pub body: Bytes,
    /// How long it may take, until the answer is read.
    pub timeout: Duration,
    /// The longest answer that is read, in bytes.
    pub limit: usize,
}

/// The answer of another service.
pub struct Incoming {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The service could not be reached, or the connection broke.
    #[error("{0}")]
    Failed(String),
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// The answer is longer than the limit.
    #[error("the answer is too long")]
    TooLong,
}

impl HttpClient {
    /// Builds the client on a TLS configuration.
    #[must_use]
    pub fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls }
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    ///
    /// Why there is no answer.
    pub async fn send(&self, outgoing: Outgoing<'_>) -> Result<Incoming, HttpError> {
        let exchange = self.exchange(&outgoing);
        tokio::time::timeout(outgoing.timeout, exchange)
            .await
            .unwrap_or(Err(HttpError::Timeout))
    }

    async fn exchange(&self, outgoing: &Outgoing<'_>) -> Result<Incoming, HttpError> {
        let mut response = match self.attempt(outgoing).await {
            // A kept connection that the service closed meanwhile: once more, on a fresh one.
            Err(error) if was_kept(&error) => self.attempt(outgoing).await,
            other => other,
        }
        .map_err(|error| HttpError::Failed(error.to_string()))?;
        let body = response.body().limit(outgoing.limit).await;
        Ok(Incoming {
            status: response.status(),
            headers: response.headers().clone(),
            body: body.map_err(|error| match error {
                PayloadError::Overflow => HttpError::TooLong,
                error => HttpError::Failed(error.to_string()),
            })?,
        })
    }

    async fn attempt(
        &self,
        outgoing: &Outgoing<'_>,
    ) -> Result<
        awc::ClientResponse<impl futures_util::Stream<Item = Result<Bytes, PayloadError>> + use<>>,
        SendRequestError,
    > {
        let mut request = self
            .client()
            .request(outgoing.method.clone(), outgoing.url)
            .insert_header((header::ACCEPT, "application/json"));
        for header in &outgoing.headers {
            request = request.append_header(header.clone());
        }
        let sending = if outgoing.body.is_empty() {
            request.send()
        } else {
            request.send_body(outgoing.body.clone())
        };
        sending.await
    }

    /// The client of this thread.
    fn client(&self) -> awc::Client {
        CLIENTS.with_borrow_mut(|clients| {
            let own = Arc::as_ptr(&self.tls);
            if let Some((_, client)) = clients.iter().find(|(tls, _)| tls.as_ptr() == own) {
                return client.clone();
            }
            clients.retain(|(tls, _)| tls.strong_count() > 0);
            let connector = Connector::new()
                .max_http_version(Version::HTTP_11)
                // After the version, whose choice forgets it.
                .rustls_0_23(self.tls.clone())
                .limit(MAX_CONNECTIONS)
                .conn_keep_alive(KEEP_ALIVE);
            let client = awc::Client::builder()
                .connector(connector)
                .disable_redirects()
                // Each request has its own.
                .disable_timeout()
                .add_default_header((header::USER_AGENT, USER_AGENT))
                .finish();
            clients.push((Arc::downgrade(&self.tls), client.clone()));
            client
        })
    }
}

/// Whether a request may have failed because its connection was one that was kept.
fn was_kept(error: &SendRequestError) -> bool {
    match error {
        SendRequestError::Connect(error) => matches!(error, ConnectError::Disconnected),
        SendRequestError::Send(_) | SendRequestError::Response(_) => true,
        _ => false,
    }
}

/// Whom the gate trusts to be who they say: the system's authorities, or Mozilla's where the system has none
/// (as in a slim container), and those of the config.
#[must_use]
pub fn tls_config(extra: &ExtraAuthorities) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots.add_parsable_certificates(extra.0.iter().cloned());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has what the protocol versions need")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
