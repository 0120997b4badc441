//! Which origins the patterns of `allowed_origins` match, and which patterns are refused.

use crate::helpers::{Origin, OriginPattern, Trust};

fn trust(pattern: &str, origin: &str) -> Option<Trust> {
    let pattern = OriginPattern::try_from(pattern.to_owned()).unwrap_or_else(|f| panic!("{f}"));
    pattern.trust(&Origin::parse(origin)?)
}

#[test]
fn a_star_matches_at_least_one_character_within_one_label() {
    for (pattern, origin, fits) in [
        ("https://*.example.com", "https://a.example.com", true),
        ("https://*.example.com", "https://a-1.example.com", true),
        ("https://*.example.com", "https://example.com", false),
        ("https://*.example.com", "https://.example.com", false),
        ("https://*.example.com", "https://a.b.example.com", false),
        ("https://*.example.com", "https://a_b.example.com", false),
        ("https://*.example.com", "https://A.example.com", false),
        (
            "https://*.example.com",
            "https://evil.com/.example.com",
            false,
        ),
        ("https://*.example.com", "https://evilexample.com", false),
        (
            "https://*.example.com",
            "https://a.example.com.evil.com",
            false,
        ),
        ("https://*.*.example.com", "https://a.b.example.com", true),
        ("https://*.*.example.com", "https://a.example.com", false),
        ("https://pr-*.example.com", "https://pr-7.example.com", true),
        ("https://pr-*.example.com", "https://pr-.example.com", false),
        (
            "https://pr-*.example.com",
            "https://xpr-7.example.com",
            false,
        ),
        (
            "https://*-app.example.com",
            "https://a-app.example.com",
            true,
        ),
        (
            "https://*-app.example.com",
            "https://-app.example.com",
            false,
        ),
        (
            "https://*-app.example.com",
            "https://a-app-app.example.com",
            true,
        ),
        (
            "https://a*b*c.example.com",
            "https://a1b2c.example.com",
            true,
        ),
        (
            "https://a*b*c.example.com",
            "https://abbbc.example.com",
            true,
        ),
        (
            "https://a*b*c.example.com",
            "https://abc.example.com",
            false,
        ),
        (
            "https://a*b*c.example.com",
            "https://a1b2c3.example.com",
            false,
        ),
        ("https://*.example.com", "http://a.example.com", false),
        ("https://*.example.com", "https://a.example.com:8443", false),
        ("https://*.example.com", "https://a.example.com:443", true),
        (
            "https://*.example.com:8443",
            "https://a.example.com:8443",
            true,
        ),
        ("https://*.example.com:8443", "https://a.example.com", false),
        ("http://192.168.1.*", "http://192.168.1.7", true),
    ] {
        assert_eq!(trust(pattern, origin).is_some(), fits, "{pattern} {origin}");
    }
}

#[test]
fn credentials_are_trusted_only_for_hosts_that_strangers_cannot_register() {
    for (pattern, origin, expected) in [
        (
            "https://*.example.com",
            "https://a.example.com",
            Trust::Credentials,
        ),
        (
            "https://*.example.co.uk",
            "https://a.example.co.uk",
            Trust::Credentials,
        ),
        ("https://*.co.uk", "https://a.co.uk", Trust::BearerOnly),
        ("https://*.com", "https://a.com", Trust::BearerOnly),
        (
            "https://*.vercel.app",
            "https://a.vercel.app",
            Trust::BearerOnly,
        ),
        (
            "https://app-*.vercel.app",
            "https://app-1.vercel.app",
            Trust::BearerOnly,
        ),
        (
            "https://a.*.vercel.app",
            "https://a.b.vercel.app",
            Trust::BearerOnly,
        ),
        (
            "https://*.a.vercel.app",
            "https://x.a.vercel.app",
            Trust::Credentials,
        ),
        (
            "https://a.vercel.app",
            "https://a.vercel.app",
            Trust::Credentials,
        ),
        (
            "https://*.github.io",
            "https://a.github.io",
            Trust::BearerOnly,
        ),
        (
            "https://example.*",
            "https://example.com",
            Trust::BearerOnly,
        ),
        (
            "https://*.example.*",
            "https://a.example.com",
            Trust::BearerOnly,
        ),
        ("http://*", "http://localhost", Trust::BearerOnly),
        (
            "chrome-extension://*",
            "chrome-extension://abc",
            Trust::BearerOnly,
        ),
        (
            "capacitor://localhost",
            "capacitor://localhost",
            Trust::Credentials,
        ),
    ] {
        assert_eq!(trust(pattern, origin), Some(expected), "{pattern}");
    }
}

#[test]
fn patterns_that_match_no_origin_are_refused() {
    for text in [
        "",
        "*",
        "null",
        "app.example.com",
        "https://",
        "https:///",
        "https://app.example.com/path",
        "https://app.example.com?x",
        "https://user@app.example.com",
        "https://app.example.com:https",
        "https://app.example.com:99999",
        "https://app.example.com:+443",
        "https://app.example.com:*",
        "*://app.example.com",
        "https://**.example.com",
        "https://a..example.com",
        "https://app.example.com.",
        "https://b\u{fc}cher.example",
        "https://0x7f.1",
        "https://*.1",
        "https://192.168.*.1",
        "https://[::1",
        "https://[::*]",
        "https://[0:0:0:0:0:0:0:1]",
        "file://localhost",
        "wss://app.example.com",
        "cap itor://localhost",
        &format!("https://{}.example.com", "a".repeat(64)),
    ] {
        let refused = OriginPattern::try_from(text.to_owned());
        assert!(refused.is_err(), "{text}: {refused:?}");
    }
    for text in [
        "HTTPS://App.Example.com/",
        "https://app.example.com:443",
        "https://[::1]:3000",
        "ionic://localhost",
        "tauri://localhost",
    ] {
        let allowed = OriginPattern::try_from(text.to_owned());
        assert!(allowed.is_ok(), "{text}: {allowed:?}");
    }
}

#[test]
fn a_host_header_matches_an_origin_with_or_without_the_default_port() {
    for (origin, host, is_at) in [
        ("https://app.example.com", "app.example.com", true),
        ("https://app.example.com", "APP.example.com:443", true),
        ("https://app.example.com:443", "app.example.com", true),
        ("https://app.example.com", "app.example.com:80", false),
        ("http://app.example.com", "app.example.com:80", true),
        ("https://app.example.com:8443", "app.example.com", false),
        ("https://app.example.com:8443", "app.example.com:8443", true),
        ("http://[::1]:3000", "[::1]:3000", true),
        ("http://[::1]", "[::1]:80", true),
        ("https://app.example.com", "app.example.com:", false),
        ("https://app.example.com", "", false),
        ("https://app.example.com", "evil.example", false),
    ] {
        let parsed = Origin::parse(origin).unwrap();
        assert_eq!(parsed.is_at(host), is_at, "{origin} {host}");
    }
}
