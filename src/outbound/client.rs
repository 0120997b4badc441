//! The HTTP client for all services except Imgwire.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use actix_web::http::{
    Method, StatusCode, Uri,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use bytes::Bytes;
use parking_lot::Mutex;
use policies::Clock;
use rustls::ClientConfig;

use super::{
    cache::CacheCapacity,
    call::{Peer, Resend, Response, call},
    connector::{PoolSettings, client, is_tls, plain},
    error::HttpError,
};
use crate::telemetry::Metrics;

/// Per service and thread: a slow service must not take connections from another.
const POOL: PoolSettings = PoolSettings {
    limit: 128,
    keep_alive: Duration::from_secs(15),
    connect_timeout: Duration::from_secs(10),
};

thread_local! {
    /// awc's clients are not `Send`.
    static CLIENTS: RefCell<Vec<ThreadClient>> = const { RefCell::new(Vec::new()) };
}

/// A client for one service, on one thread.
struct ThreadClient {
    /// The [`HttpClient`] that it belongs to.
    owner: Weak<Shared>,
    origin: String,
    client: awc::Client,
}

#[derive(Clone)]
pub struct HttpClient(Arc<Shared>);

struct Shared {
    tls: Arc<ClientConfig>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// By origin. Origins are bounded: they come from the config and from the discovery documents of its issuers.
    peers: Mutex<HashMap<String, Arc<Peer>>>,
}

/// What callers of other services share.
#[derive(Clone)]
pub struct Outbound {
    pub http: HttpClient,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub caches: CacheCapacity,
}

pub(crate) struct OutboundRequest<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a str,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// If it is empty, the request has no body.
    pub(crate) body: Bytes,
    /// Includes reading the response.
    pub(crate) timeout: Duration,
    pub(crate) max_response_bytes: usize,
    pub(crate) resend: Resend,
}

/// What the caller does with the body of a response.
#[derive(Clone, Copy, Debug)]
enum Body {
    Needed,
    Ignored,
}

/// How long a body may take that is ignored.
const IGNORED_BODY_TIME: Duration = Duration::from_secs(1);

pub(crate) struct OutboundResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Response for OutboundResponse {
    fn status(&self) -> StatusCode {
        self.status
    }
}

impl HttpClient {
    #[must_use]
    pub fn new(tls: Arc<ClientConfig>, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared {
            tls,
            clock,
            metrics,
            peers: Mutex::default(),
        }))
    }

    pub(crate) async fn send(
        &self,
        request: OutboundRequest<'_>,
    ) -> Result<OutboundResponse, HttpError> {
        self.send_with(request, Body::Needed).await
    }

    /// Like [`send`](Self::send), if only the head of the response matters. The body of the result is empty.
    pub(crate) async fn send_for_head(
        &self,
        request: OutboundRequest<'_>,
    ) -> Result<OutboundResponse, HttpError> {
        self.send_with(request, Body::Ignored).await
    }

    async fn send_with(
        &self,
        request: OutboundRequest<'_>,
        body: Body,
    ) -> Result<OutboundResponse, HttpError> {
        let invalid_url = || HttpError::Unreachable("the URL has no host".to_owned());
        let url = Uri::try_from(request.url).map_err(|_| invalid_url())?;
        let (plain_url, host) = plain(&url).map_err(|_| invalid_url())?;
        let (peer, client) = self.0.service(&url);
        peer.budget.deposit();
        let send = async || exchange(&client, &request, &plain_url, &host, body).await;
        call(
            &peer,
            &request.method,
            request.resend,
            request.timeout,
            send,
        )
        .await
    }
}

async fn exchange(
    client: &awc::Client,
    request: &OutboundRequest<'_>,
    url: &Uri,
    host: &HeaderValue,
    body: Body,
) -> Result<OutboundResponse, HttpError> {
    let mut builder = client
        .request(request.method.clone(), url)
        .insert_header((header::HOST, host.clone()));
    for header in &request.headers {
        builder = builder.insert_header(header.clone());
    }
    builder = builder.insert_header_if_none((header::ACCEPT, "application/json"));
    let sending = if request.body.is_empty() {
        builder.send()
    } else {
        builder.send_body(request.body.clone())
    };
    let mut response = sending.await.map_err(|error| HttpError::from(&error))?;
    let reading = response.body().limit(request.max_response_bytes);
    let body = match body {
        Body::Needed => reading.await?,
        Body::Ignored => {
            // A connection can be used again only if its body was read. A failure ends it.
            let _ = tokio::time::timeout(IGNORED_BODY_TIME, reading).await;
            Bytes::new()
        }
    };
    Ok(OutboundResponse {
        status: response.status(),
        headers: response.headers().clone(),
        body,
    })
}

impl Shared {
    /// Returns the service of a URL, and this thread's client for it.
    fn service(self: &Arc<Self>, url: &Uri) -> (Arc<Peer>, awc::Client) {
        let scheme = url.scheme_str().unwrap_or_default();
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let origin = format!("{scheme}://{authority}");
        let mut peers = self.peers.lock();
        let peer = peers.entry(origin.clone());
        let peer = peer
            .or_insert_with(|| Peer::new(url, &self.clock, &self.metrics))
            .clone();
        drop(peers);
        let client = CLIENTS.with_borrow_mut(|clients| {
            let own = clients.iter().find(|client| {
                std::ptr::eq(client.owner.as_ptr(), Arc::as_ptr(self)) && client.origin == origin
            });
            if let Some(own) = own {
                return own.client.clone();
            }
            clients.retain(|client| client.owner.strong_count() > 0);
            let client = client(&peer, is_tls(url).then_some(&self.tls), &POOL);
            clients.push(ThreadClient {
                owner: Arc::downgrade(self),
                origin,
                client: client.clone(),
            });
            client
        });
        (peer, client)
    }
}
