//! How awc connects to other services.

use std::{io, sync::Arc, time::Duration};

use actix_service::Service;
use actix_tls::connect::{ConnectError, ConnectInfo, Connection};
use actix_web::http::{
    Uri,
    header::{self, HeaderValue},
};
use awc::Connector;
use futures_util::future::LocalBoxFuture;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio_rustls::TlsConnector;

use super::{
    call::Peer,
    dial::dial,
    stream::{Stream, Transport},
};

pub const USER_AGENT: &str = concat!("imgwire-gate/", env!("CARGO_PKG_VERSION"));

pub(crate) struct PoolSettings {
    pub(crate) limit: usize,
    pub(crate) keep_alive: Duration,
    pub(crate) connect_timeout: Duration,
}

/// Builds a thread's client for one service. It takes [`plain`] URLs, because the connector does TLS itself: it must
/// read the decrypted response.
pub(crate) fn client(
    peer: &Arc<Peer>,
    tls: Option<&Arc<ClientConfig>>,
    settings: &PoolSettings,
) -> awc::Client {
    let connector = Connector::new()
        .connector(OutboundConnector {
            peer: peer.clone(),
            tls: tls.map(|tls| TlsConnector::from(tls.clone())),
        })
        .timeout(settings.connect_timeout)
        .limit(settings.limit)
        .conn_keep_alive(settings.keep_alive);
    awc::Client::builder()
        .connector(connector)
        .disable_redirects()
        // Each call has its own timeout.
        .disable_timeout()
        .add_default_header((header::USER_AGENT, USER_AGENT))
        .finish()
}

pub(crate) fn is_tls(url: &Uri) -> bool {
    url.scheme_str() == Some("https")
}

/// Returns the URL for awc, which is `http` even with TLS and keeps its port, and the value of `Host`.
pub(crate) fn plain(url: &Uri) -> Result<(Uri, HeaderValue), InvalidUrl> {
    let authority = url.authority().ok_or(InvalidUrl)?;
    let host = authority
        .as_str()
        .rsplit_once('@')
        .map_or(authority.as_str(), |(_, host)| host);
    let host = HeaderValue::from_str(host).map_err(|_| InvalidUrl)?;
    if !is_tls(url) {
        return Ok((url.clone(), host));
    }
    let port = url.port_u16().unwrap_or(443);
    let plain = Uri::builder()
        .scheme("http")
        .authority(format!("{}:{port}", authority.host()))
        .path_and_query(
            url.path_and_query()
                .map_or("/", |path_and_query| path_and_query.as_str()),
        );
    Ok((plain.build().map_err(|_| InvalidUrl)?, host))
}

#[derive(Debug, thiserror::Error)]
#[error("the URL has no host")]
pub(crate) struct InvalidUrl;

#[derive(Clone)]
struct OutboundConnector {
    peer: Arc<Peer>,
    tls: Option<TlsConnector>,
}

impl Service<ConnectInfo<Uri>> for OutboundConnector {
    type Response = Connection<Uri, Stream>;
    type Error = ConnectError;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Self::Error>>;

    actix_service::always_ready!();

    fn call(&self, request: ConnectInfo<Uri>) -> Self::Future {
        let Self { peer, tls } = self.clone();
        Box::pin(async move {
            let url = request.request();
            let host = url.host().ok_or(ConnectError::Unresolved)?;
            let tcp = dial(host, url.port_u16().unwrap_or(80)).await;
            let tcp = tcp.map_err(ConnectError::Io)?;
            let transport = match tls {
                None => Transport::Left(tcp),
                Some(tls) => {
                    let name = server_name(host).map_err(ConnectError::Io)?;
                    let stream = tls.connect(name, tcp).await;
                    Transport::Right(Box::new(stream.map_err(ConnectError::Io)?))
                }
            };
            let stream = Stream::new(transport, peer);
            Ok(Connection::new(url.clone(), stream))
        })
    }
}

fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}
