//! Connects to a host name that may have several addresses.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::net::{TcpStream, lookup_host};

/// The delay before the next address is also tried. RFC 8305, 5 asks for at least 100 ms, and the timeout of a policy may
/// be a few hundred.
const ATTEMPT_DELAY: Duration = Duration::from_millis(100);

const MAX_ADDRESSES: usize = 8;

/// Connects to `host`, which may be an address in brackets. Tries the next address after a delay, or as soon as one
/// fails. The first connection wins (Happy Eyeballs, RFC 8305).
pub(super) async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
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
