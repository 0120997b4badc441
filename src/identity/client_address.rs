//! The client's address, as the trusted proxies tell it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use actix_web::http::header::{self, HeaderMap, HeaderName};
use ipnet::IpNet;
use rfc7239::{NodeIdentifier, NodeName};

use super::request_view::RequestView;
use crate::settings::server::Network;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Finds the client's address. `X-Forwarded-For`, or `Forwarded` (RFC 7239) where there is none, is believed
/// from trusted proxies alone, and of it the rightmost address that is not a trusted proxy's.
#[derive(Clone)]
pub struct ClientAddress {
    trusted: Vec<IpNet>,
}

impl ClientAddress {
    /// Trusts the proxies of these networks.
    #[must_use]
    pub fn new(trusted_proxies: &[Network]) -> Self {
        Self {
            trusted: trusted_proxies.iter().map(|network| network.0).collect(),
        }
    }

    /// The address that `request` comes from.
    #[must_use]
    pub fn of(&self, request: &dyn RequestView) -> IpAddr {
        self.behind(peer(request), request.headers())
    }

    /// Whether a trusted proxy sent `request`.
    #[must_use]
    pub fn is_from_proxy(&self, request: &dyn RequestView) -> bool {
        self.trusts(peer(request))
    }

    fn behind(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.trusts(peer) {
            return peer;
        }
        let mut hops = hops(headers, &X_FORWARDED_FOR, |text| {
            text.split(',').map(|hop| parse(hop.trim())).collect()
        });
        if hops.is_empty() {
            hops = self::hops(headers, &header::FORWARDED, |text| {
                let nodes = rfc7239::parse(text);
                nodes
                    .map(|node| address(node.ok()?.forwarded_for?))
                    .collect()
            });
        }
        let mut nearest = peer;
        for hop in hops.into_iter().rev() {
            // Beyond a hop that cannot be read nobody knows who wrote what.
            let Some(hop) = hop else { break };
            nearest = hop;
            if !self.trusts(hop) {
                break;
            }
        }
        nearest
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted
            .iter()
            .any(|network| network.contains(&address))
    }
}

/// Who sent `request`: the peer of a Unix socket counts as 127.0.0.1.
fn peer(request: &dyn RequestView) -> IpAddr {
    let peer = request.peer_addr();
    let peer = peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.ip());
    peer.to_canonical()
}

/// All hops of a header, whose lines are one list, the nearest last.
fn hops(
    headers: &HeaderMap,
    name: &HeaderName,
    split: impl Fn(&str) -> Vec<Option<IpAddr>>,
) -> Vec<Option<IpAddr>> {
    headers
        .get_all(name)
        .flat_map(|line| line.to_str().map_or_else(|_| vec![None], &split))
        .collect()
}

/// An address as proxies write it: bare, or with a port.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    bare.unwrap_or(text)
        .parse()
        .or_else(|_| text.parse().map(|socket: SocketAddr| socket.ip()))
        .map(|address: IpAddr| address.to_canonical())
        .ok()
}

fn address(node: NodeIdentifier<'_>) -> Option<IpAddr> {
    match node.name {
        NodeName::Ip(address) => Some(address.to_canonical()),
        _ => None,
    }
}
