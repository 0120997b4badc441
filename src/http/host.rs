//! Checks `Host` against DNS rebinding. If an attacker points a domain to this machine, browsers treat requests from
//! its pages as same-origin; only `Host` shows the foreign name.

use std::net::{Ipv4Addr, Ipv6Addr};

use actix_web::http::{
    Uri,
    header::{self, HeaderMap},
};
use policies::{Denial, excerpt};

use crate::config::server::HostName;

/// Accepts an IP address, `localhost`, one of `names`, or no host.
pub(crate) fn check(headers: &HeaderMap, uri: &Uri, names: &[HostName]) -> Result<(), Denial> {
    for host in headers.get_all(header::HOST) {
        let host = host.to_str().unwrap_or_default();
        if !is_own(host, names) {
            return Err(foreign("Host", host));
        }
    }
    // A target in absolute form also names a host, which takes precedence over the header (RFC 9112, 3.2.2).
    match uri.authority() {
        Some(authority) if !is_own(authority.as_str(), names) => Err(foreign(
            "the host of the request target",
            authority.as_str(),
        )),
        _ => Ok(()),
    }
}

fn foreign(place: &str, host: &str) -> Denial {
    Denial::CrossSite(format!("{place} is `{}`", excerpt(host)))
}

/// `host` may include a port.
fn is_own(host: &str, names: &[HostName]) -> bool {
    if host.parse::<Ipv6Addr>().is_ok() {
        return true;
    }
    let (name, port) = match host.rsplit_once(':') {
        // In `[::1]` the last colon does not precede a port.
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, ""),
    };
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let bracketed = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    match bracketed {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            name.parse::<Ipv4Addr>().is_ok()
                || name
                    .strip_suffix('.')
                    .unwrap_or(name)
                    .eq_ignore_ascii_case("localhost")
                || names.iter().any(|own| own.is(name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_configured_names_are_own_hosts() {
        let names =
            [HostName::try_from("Gate-Admin.internal".to_owned()).expect("the name is valid")];
        for own in [
            "127.0.0.1",
            "127.0.0.1:9090",
            "192.0.2.7:1",
            "[::1]",
            "[::1]:9090",
            "::1",
            "[2001:db8::7]:9090",
            "localhost",
            "LOCALHOST:9090",
            "localhost.",
            "gate-admin.internal",
            "gate-admin.internal:9090",
            "GATE-ADMIN.internal.",
        ] {
            assert!(is_own(own, &names), "{own}");
        }
        for foreign in [
            "",
            ":9090",
            "evil.example",
            "evil.example:9090",
            "localhost.evil.example",
            "evil.localhost",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "evil.example@127.0.0.1",
            "localhost:evil",
            "127.1",
            "2130706433",
            "[::1].evil.example",
            "[evil.example]",
            "[::1",
            "::1]",
            "gate-admin.internal.evil.example",
            "gate-admin",
            "localhost,evil.example",
            "localhost evil.example",
            "localhost..",
        ] {
            assert!(!is_own(foreign, &names), "{foreign}");
        }
    }

    #[test]
    fn a_configured_host_must_be_a_plain_host_name() {
        for text in [
            "",
            ".",
            "a..b",
            "gate:9090",
            "https://gate.example.com",
            "*.example.com",
            "gate admin",
            "gate/",
            "[::1]",
            &"a".repeat(64),
            &"a.".repeat(130),
        ] {
            assert!(HostName::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
