//! How a connection to another service is opened, with TLS, and how awc uses it.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use actix_service::Service;
use actix_tls::connect::{ConnectError, ConnectInfo, Connection};
use actix_web::http::{
    Uri,
    header::{self, HeaderValue},
    uri::PathAndQuery,
};
use awc::Connector;
use futures_util::{StreamExt as _, future::LocalBoxFuture, stream::FuturesUnordered};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;

use super::{
    authorities::Authorities,
    call::Peer,
    stream::{Stream, Transport},
    tls_error,
};
use crate::config::outbound::ExtraAuthorities;

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
    let way = match tls {
        None => Way::Tcp,
        Some(tls) => Way::Tls(TlsConnector::from(tls.clone())),
    };
    client_over(way, peer, settings)
}

/// Builds a client for what listens on a Unix socket, whatever host a URL names.
pub(crate) fn socket_client(
    peer: &Arc<Peer>,
    socket: &Path,
    settings: &PoolSettings,
) -> awc::Client {
    client_over(Way::Socket(socket.to_owned()), peer, settings)
}

fn client_over(way: Way, peer: &Arc<Peer>, settings: &PoolSettings) -> awc::Client {
    let connector = Connector::new()
        .connector(OutboundConnector {
            peer: peer.clone(),
            way,
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
        .path_and_query(url.path_and_query().map_or("/", PathAndQuery::as_str));
    Ok((plain.build().map_err(|_| InvalidUrl)?, host))
}

#[derive(Debug, thiserror::Error)]
#[error("the URL has no host")]
pub(crate) struct InvalidUrl;

#[derive(Clone)]
struct OutboundConnector {
    peer: Arc<Peer>,
    way: Way,
}

/// How a service is reached.
#[derive(Clone)]
enum Way {
    Tcp,
    Tls(TlsConnector),
    Socket(PathBuf),
}

impl Service<ConnectInfo<Uri>> for OutboundConnector {
    type Response = Connection<Uri, Stream>;
    type Error = ConnectError;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Self::Error>>;

    actix_service::always_ready!();

    fn call(&self, request: ConnectInfo<Uri>) -> Self::Future {
        let Self { peer, way } = self.clone();
        Box::pin(async move {
            let url = request.request();
            let host = url.host().ok_or(ConnectError::Unresolved)?;
            // An IPv6 address is in brackets.
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let port = url.port_u16().unwrap_or(80);
            let transport = async {
                match &way {
                    Way::Tcp => Ok(Transport::Left(dial(host, port).await?)),
                    Way::Tls(tls) => secure(Some(tls), dial(host, port).await?, host).await,
                    Way::Socket(path) => {
                        let socket = UnixStream::connect(path).await?;
                        Ok(Transport::Right(Either::Right(socket)))
                    }
                }
            };
            let transport = transport.await.map_err(ConnectError::Io)?;
            let stream = Stream::new(transport, host.to_owned(), peer);
            Ok(Connection::new(url.clone(), stream))
        })
    }
}

/// Adds TLS to a connection to `host`, if `tls` is set.
pub(crate) async fn secure(
    tls: Option<&TlsConnector>,
    tcp: TcpStream,
    host: &str,
) -> io::Result<Transport> {
    let Some(tls) = tls else {
        return Ok(Transport::Left(tcp));
    };
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let connected = tls.connect(name, tcp).await;
    let stream = connected.map_err(|error| tls_error::explain(error, host))?;
    Ok(Transport::Right(Either::Left(Box::new(stream))))
}

/// The delay before the next address is also tried. RFC 8305, 5 asks for at least 100 ms, and the timeout of a policy may
/// be a few hundred.
const ATTEMPT_DELAY: Duration = Duration::from_millis(100);

const MAX_ADDRESSES: usize = 8;

/// Connects to a host name that may have several addresses. Tries the next address after a delay, or as soon as one
/// fails. The first connection wins (Happy Eyeballs, RFC 8305).
async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = lookup_host((host, port)).await?.collect();
    let mut waiting = interleaved(addresses).into_iter();
    let mut connecting = FuturesUnordered::new();
    let mut last_error = None;
    loop {
        if let Some(address) = waiting.next() {
            connecting.push(TcpStream::connect(address));
        } else if connecting.is_empty() {
            let unresolved =
                || io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
            return Err(last_error.unwrap_or_else(unresolved));
        }
        let connected = if waiting.len() > 0 {
            tokio::time::timeout(ATTEMPT_DELAY, connecting.next()).await
        } else {
            Ok(connecting.next().await)
        };
        match connected {
            Ok(Some(Ok(stream))) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Some(Err(error))) => last_error = Some(error),
            // The next address is tried, too. This one may still connect.
            Ok(None) | Err(_) => {}
        }
    }
}

/// Alternates IPv4 and IPv6, so that a family without a route does not delay the other.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut families = [preferred.into_iter(), other.into_iter()];
    let mut interleaved = Vec::with_capacity(MAX_ADDRESSES);
    while interleaved.len() < MAX_ADDRESSES {
        let before = interleaved.len();
        interleaved.extend(families.iter_mut().filter_map(Iterator::next));
        if interleaved.len() == before {
            break;
        }
    }
    interleaved.truncate(MAX_ADDRESSES);
    interleaved
}

/// Trusts the system's authorities, or Mozilla's if the system has none (as in a slim container), and those of the
/// config.
#[must_use]
pub fn tls_config(extra: &ExtraAuthorities) -> Arc<ClientConfig> {
    Authorities::new(extra).client_config()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn address_families_alternate_and_long_lists_are_truncated() {
        let given = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1", "10.0.0.2:1"]);
        let expected = addresses(&["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1", "[::3]:1"]);
        assert_eq!(interleaved(given), expected);
        let many = (0..100).map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        assert_eq!(interleaved(many.collect()).len(), MAX_ADDRESSES);
        assert!(interleaved(Vec::new()).is_empty());
    }
}
