//! What trusted proxies report about a client: its address and its scheme.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Once},
};

use actix_web::http::header::{self, HeaderMap, HeaderName};
use ipnet::IpNet;
use rfc7239::{NodeIdentifier, NodeName};

use super::request_view::RequestView;
use crate::config::server::{AddressHeader, ServerSettings};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Finds the client's address in the header that the config names: the rightmost address that is not a trusted proxy.
/// The gate ignores the header unless a trusted proxy sent it.
#[derive(Clone)]
pub struct ClientAddress {
    trusted: Vec<IpNet>,
    header: Option<AddressHeader>,
    /// Logs once that the config should name the header.
    ambiguity_warning: Arc<Once>,
}

impl ClientAddress {
    #[must_use]
    pub fn new(server: &ServerSettings) -> Self {
        let trusted = server.trusted_proxies.iter();
        Self {
            trusted: trusted.map(|network| network.0).collect(),
            header: server.client_address,
            ambiguity_warning: Arc::new(Once::new()),
        }
    }

    #[must_use]
    pub fn of(&self, request: &dyn RequestView) -> IpAddr {
        self.behind(peer(request), request.headers())
    }

    /// Whether a trusted proxy sent `request`.
    #[must_use]
    pub fn is_from_proxy(&self, request: &dyn RequestView) -> bool {
        self.trusts(peer(request))
    }

    /// Whether the peer is not trusted but sends the headers of a proxy, so that many clients may share its address.
    #[must_use]
    pub fn is_untrusted_proxy(&self, request: &dyn RequestView) -> bool {
        const FORWARDING: [HeaderName; 4] = [
            X_FORWARDED_FOR,
            header::FORWARDED,
            X_REAL_IP,
            X_FORWARDED_PROTO,
        ];
        let headers = request.headers();
        !self.is_from_proxy(request) && FORWARDING.iter().any(|name| headers.contains_key(name))
    }

    /// Whether the client used `scheme`, according to `X-Forwarded-Proto` and `Forwarded`; the leftmost value of each
    /// counts. `None` if no trusted proxy reports a scheme.
    #[must_use]
    pub fn reports_scheme(&self, request: &dyn RequestView, scheme: &str) -> Option<bool> {
        if !self.is_from_proxy(request) {
            return None;
        }
        let headers = request.headers();
        let reported = headers.get(X_FORWARDED_PROTO).map(|line| {
            let text = line.to_str().unwrap_or_default();
            text.split(',').next().unwrap_or_default().trim().to_owned()
        });
        let forwarded = headers.get(header::FORWARDED).and_then(|line| {
            let mut nodes = rfc7239::parse(line.to_str().ok()?);
            nodes.find_map(|node| Some(node.ok()?.protocol?.trim_matches('"').to_owned()))
        });
        let mut reports = reported.into_iter().chain(forwarded).peekable();
        reports.peek()?;
        Some(reports.all(|report| report.eq_ignore_ascii_case(scheme)))
    }

    fn behind(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.trusts(peer) {
            return peer;
        }
        let mut nearest = peer;
        for hop in self.hops(headers).into_iter().rev() {
            // A client may have written everything to the left of an unreadable hop.
            let Some(hop) = hop else { break };
            nearest = hop;
            if !self.trusts(hop) {
                break;
            }
        }
        nearest
    }

    /// The addresses in the configured header, the nearest last.
    fn hops(&self, headers: &HeaderMap) -> Vec<Option<IpAddr>> {
        match self.header {
            Some(AddressHeader::XForwardedFor) => x_forwarded_for(headers),
            Some(AddressHeader::Forwarded) => forwarded(headers),
            Some(AddressHeader::XRealIp) => x_real_ip(headers),
            None => {
                let hops = x_forwarded_for(headers);
                if hops.is_empty() {
                    return forwarded(headers);
                }
                if headers.contains_key(header::FORWARDED) {
                    self.ambiguity_warning.call_once(|| {
                        tracing::warn!(
                            "a trusted proxy sent both X-Forwarded-For and Forwarded, and a client may have written one \
                             of them; set [server] client_address to the header that the proxy writes"
                        );
                    });
                }
                hops
            }
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted
            .iter()
            .any(|network| network.contains(&address))
    }
}

/// The peer of a Unix socket counts as 127.0.0.1.
fn peer(request: &dyn RequestView) -> IpAddr {
    let peer = request.peer();
    let peer = peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.ip());
    peer.to_canonical()
}

fn x_forwarded_for(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    hops(headers, &X_FORWARDED_FOR, |text| {
        text.split(',').map(parse).collect()
    })
}

fn forwarded(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    // Each element by itself: an invalid one that a client wrote must not hide the one that the proxy appended.
    hops(headers, &header::FORWARDED, |text| {
        let node = |element| rfc7239::parse(element).next()?.ok()?.forwarded_for;
        text.split(',')
            .map(|element| address(node(element)?))
            .collect()
    })
}

/// The header is not a list. If it occurs twice, a client may have written one of them.
fn x_real_ip(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let hops = hops(headers, &X_REAL_IP, |text| vec![parse(text)]);
    if hops.len() > 1 { vec![None] } else { hops }
}

/// All hops of a header, the nearest last. Its lines are one list. A hop that is not UTF-8 is not an address.
fn hops(
    headers: &HeaderMap,
    name: &HeaderName,
    split: impl Fn(&str) -> Vec<Option<IpAddr>>,
) -> Vec<Option<IpAddr>> {
    headers
        .get_all(name)
        .flat_map(|line| split(&String::from_utf8_lossy(line.as_bytes())))
        .collect()
}

/// Proxies write an address with or without a port.
fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches([' ', '\t']);
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
