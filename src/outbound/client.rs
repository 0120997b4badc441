//! The HTTP client for all services but Imgwire.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use actix_web::http::{
    Method, StatusCode, Uri,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use bytes::Bytes;
use policies::Clock;
use rustls::ClientConfig;

use super::{
    cache::CacheShares,
    call::{Peer, Repeat, call},
    connector::{PoolSettings, client, is_tls, plain},
    error::HttpError,
};
use crate::telemetry::Metrics;

/// Each service has its own connections, so that a slow one takes none from another.
const POOL: PoolSettings = PoolSettings {
    limit: 128,
    keep_alive: Duration::from_secs(15),
    connect_timeout: Duration::from_secs(10),
};

thread_local! {
    /// awc's clients stay on the thread that made them.
    static CLIENTS: RefCell<Vec<ThreadClient>> = const { RefCell::new(Vec::new()) };
}

/// A client for one service, on one thread.
struct ThreadClient {
    /// The [`HttpClient`] that it is for.
    of: Weak<Shared>,
    origin: String,
    client: awc::Client,
}

#[derive(Clone)]
pub struct HttpClient(Arc<Shared>);

struct Shared {
    tls: Arc<ClientConfig>,
    clock: Arc<dyn Clock>,
    /// By origin. Origins come from the config, and from the documents of the issuers that it names.
    peers: Mutex<HashMap<String, Arc<Peer>>>,
}

/// Shared by everything that calls other services.
#[derive(Clone)]
pub struct Outbound {
    pub http: HttpClient,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub caches: CacheShares,
}

pub(crate) struct Outgoing<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a str,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The body, if it is not empty.
    pub(crate) body: Bytes,
    /// Until the response is read.
    pub(crate) timeout: Duration,
    /// The longest response that is read, in bytes.
    pub(crate) limit: usize,
    pub(crate) repeat: Repeat,
}

pub(crate) struct Incoming {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl HttpClient {
    #[must_use]
    pub fn new(tls: Arc<ClientConfig>, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared {
            tls,
            clock,
            peers: Mutex::default(),
        }))
    }

    pub(crate) async fn send(&self, outgoing: Outgoing<'_>) -> Result<Incoming, HttpError> {
        let unusable = || HttpError::Unreachable("the URL has no host".to_owned());
        let url = Uri::try_from(outgoing.url).map_err(|_| unusable())?;
        let (plain_url, host) = plain(&url).map_err(|_| unusable())?;
        let (peer, client) = self.0.service(&url);
        peer.budget.deposit();
        let attempt = async || exchange(&client, &outgoing, &plain_url, &host).await;
        call(&peer, outgoing.repeat, outgoing.timeout, attempt).await
    }
}

async fn exchange(
    client: &awc::Client,
    outgoing: &Outgoing<'_>,
    url: &Uri,
    host: &HeaderValue,
) -> Result<Incoming, HttpError> {
    let mut request = client
        .request(outgoing.method.clone(), url)
        .insert_header((header::HOST, host.clone()))
        .insert_header((header::ACCEPT, "application/json"));
    for header in &outgoing.headers {
        request = request.append_header(header.clone());
    }
    let sending = if outgoing.body.is_empty() {
        request.send()
    } else {
        request.send_body(outgoing.body.clone())
    };
    let mut response = sending.await.map_err(|error| HttpError::from(&error))?;
    let body = response.body().limit(outgoing.limit).await?;
    Ok(Incoming {
        status: response.status(),
        headers: response.headers().clone(),
        body,
    })
}

impl Shared {
    /// The service of a URL, and this thread's client for it.
    fn service(self: &Arc<Self>, url: &Uri) -> (Arc<Peer>, awc::Client) {
        let scheme = url.scheme_str().unwrap_or_default();
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let origin = format!("{scheme}://{authority}");
        let peer = {
            let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
            let peer = peers.entry(origin.clone());
            peer.or_insert_with(|| Peer::new(self.clock.clone()))
                .clone()
        };
        let client = CLIENTS.with_borrow_mut(|clients| {
            let own = clients.iter().find(|client| {
                std::ptr::eq(client.of.as_ptr(), Arc::as_ptr(self)) && client.origin == origin
            });
            if let Some(own) = own {
                return own.client.clone();
            }
            clients.retain(|client| client.of.strong_count() > 0);
            let client = client(&peer, is_tls(url).then_some(&self.tls), &POOL);
            clients.push(ThreadClient {
                of: Arc::downgrade(self),
                origin,
                client: client.clone(),
            });
            client
        });
        (peer, client)
    }
}
