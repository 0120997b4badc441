//! Whether Imgwire's CORS origins cover the gate's `allowed_origins`.
//!
//! Imgwire's are host patterns: `app.example.com`, `*.example.com`, `localhost:3000`. How far a `*` reaches and whether a
//! pattern without a port matches any port is not documented, so such a pair is unclear.

use crate::config::origin::{Origin, OriginPattern};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Coverage {
    NotCovered,
    Unclear,
    Covered,
}

/// A pattern that every host matches, if its `*` reaches over dots.
pub(super) const ANY: &str = "*";

/// Whether uploads from every page of `origin` are accepted.
pub(super) fn coverage(origin: &OriginPattern, patterns: &[String]) -> Coverage {
    let origin = origin.as_origin();
    let covered = patterns.iter().map(|pattern| covers(pattern, origin));
    covered.max().unwrap_or(Coverage::NotCovered)
}

fn covers(pattern: &str, origin: &Origin) -> Coverage {
    let pattern = pattern.trim().to_ascii_lowercase();
    // A default port is the same as none.
    let Some(pattern) = Origin::parse(&format!("{}://{pattern}", origin.scheme())) else {
        return Coverage::NotCovered;
    };
    let is_web = matches!(origin.scheme(), "http" | "https");
    match host_covers(pattern.host(), origin.host()) {
        Coverage::NotCovered => Coverage::NotCovered,
        _ if !is_web => Coverage::Unclear,
        by_host if pattern.port() == origin.port() => by_host,
        _ if pattern.port().is_none() => Coverage::Unclear,
        _ => Coverage::NotCovered,
    }
}

fn host_covers(pattern: &str, host: &str) -> Coverage {
    if pattern == host || pattern == ANY {
        return Coverage::Covered;
    }
    let below = pattern
        .strip_prefix('*')
        .filter(|rest| rest.starts_with('.'));
    match below.and_then(|below| host.strip_suffix(below)) {
        Some(label) if !label.is_empty() && !label.contains('.') => Coverage::Covered,
        Some(label) if !label.is_empty() => Coverage::Unclear,
        _ if matches_as_ours(pattern, host) => Coverage::Unclear,
        _ => Coverage::NotCovered,
    }
}

/// Whether the pattern would match if Imgwire read it as the gate reads its own.
fn matches_as_ours(pattern: &str, host: &str) -> bool {
    let pattern = OriginPattern::try_from(format!("https://{pattern}"));
    let host = Origin::parse(&format!("https://{}", host.replace('*', "a")));
    pattern
        .ok()
        .zip(host)
        .is_some_and(|(pattern, host)| pattern.trust(&host).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(origin: &str, patterns: &[&str]) -> Coverage {
        let origin = OriginPattern::try_from(origin.to_owned()).unwrap();
        let patterns: Vec<_> = patterns.iter().map(|text| (*text).to_owned()).collect();
        coverage(&origin, &patterns)
    }

    #[test]
    fn hosts_and_patterns_cover_what_they_match() {
        for (origin, pattern) in [
            ("https://app.example.com", "app.example.com"),
            ("https://app.example.com", "App.Example.com"),
            ("https://app.example.com", "app.example.com:443"),
            ("https://app.example.com", "*.example.com"),
            ("https://*.example.com", "*.example.com"),
            ("https://app-*.example.com", "*.example.com"),
            ("http://localhost:3000", "localhost:3000"),
            ("https://app.example.com", "*"),
        ] {
            assert_eq!(
                covered(origin, &["other", pattern]),
                Coverage::Covered,
                "{origin} {pattern}"
            );
        }
    }

    #[test]
    fn other_hosts_and_ports_are_not_covered() {
        for (origin, pattern) in [
            ("https://app.example.com", "example.com"),
            ("https://example.com", "*.example.com"),
            ("https://app.example.com", "*.example.org"),
            ("https://*.example.com", "app.example.com"),
            ("https://appexample.com", "*.example.com"),
            ("https://app.example.com", "app-*.vercel.app"),
            ("http://localhost:3000", "localhost:3001"),
            ("https://app.example.com", "app.example.com:8443"),
        ] {
            assert_eq!(
                covered(origin, &[pattern]),
                Coverage::NotCovered,
                "{origin} {pattern}"
            );
        }
        assert_eq!(
            covered("https://app.example.com", &[]),
            Coverage::NotCovered
        );
    }

    #[test]
    fn what_is_not_documented_is_unclear() {
        for (origin, pattern) in [
            ("https://a.b.example.com", "*.example.com"),
            ("https://*.b.example.com", "*.example.com"),
            ("https://app.example.com:8443", "app.example.com"),
            ("capacitor://localhost", "localhost"),
            ("https://app-1.vercel.app", "app-*.vercel.app"),
        ] {
            assert_eq!(
                covered(origin, &[pattern]),
                Coverage::Unclear,
                "{origin} {pattern}"
            );
        }
    }
}
