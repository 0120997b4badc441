//! The gate's own origin, for browsers that send only `Origin`.

use crate::helpers::{Answer, Gate, TestApp, Token};

/// Asks with the app's cookie and these headers; `host` replaces the default.
async fn ask_with(app: &TestApp, headers: &[(&str, &str)]) -> Answer {
    let cookie = format!("__session={}", Token::of("user_1").sign());
    let request = app.ask().header("cookie", &cookie);
    let request = headers.iter().fold(request, |request, (name, value)| {
        if *name == "host" {
            request.instead("host", value)
        } else {
            request.header(name, value)
        }
    });
    request.send().await
}

#[actix_web::test]
async fn the_own_origin_is_the_host_with_https_or_http_on_this_machine() {
    let app = TestApp::start().await;
    for (host, origin, is_own) in [
        ("app.example.com", "https://app.example.com", true),
        ("app.example.com:443", "https://app.example.com", true),
        ("app.example.com", "https://app.example.com:443", true),
        ("APP.example.com", "https://app.example.com", true),
        ("app.example.com:8443", "https://app.example.com:8443", true),
        ("app.example.com:8443", "https://app.example.com", false),
        ("app.example.com", "https://app.example.com:8443", false),
        ("app.example.com", "https://example.com", false),
        (
            "app.example.com",
            "https://app.example.com.evil.example",
            false,
        ),
        // Anyone on the network path can modify a page that is loaded over plain HTTP.
        ("app.example.com", "http://app.example.com", false),
        ("app.example.com:80", "http://app.example.com", false),
        ("localhost:8080", "http://localhost:8080", true),
        ("app.localhost", "http://app.localhost", true),
        ("127.0.0.1", "http://127.0.0.1", true),
        ("127.0.0.1:80", "http://127.0.0.1", true),
        ("[::1]:3000", "http://[::1]:3000", true),
        ("192.168.1.7", "http://192.168.1.7", false),
        ("localhost", "capacitor://localhost", false),
        ("null", "null", false),
    ] {
        // Only trusted proxies may report the scheme.
        for more in [None, Some(("x-forwarded-proto", "http"))] {
            let mut headers = vec![("host", host), ("origin", origin)];
            headers.extend(more);
            let answer = ask_with(&app, &headers).await;
            assert_eq!(answer.status == 200, is_own, "{host} {origin}: {answer:?}");
            if !is_own {
                answer.assert_error(403, "cross_site");
            }
        }
    }
}

#[actix_web::test]
async fn the_own_origin_has_the_scheme_that_a_trusted_proxy_reports() {
    let app = Gate::standard()
        .server("trusted_proxies", ["127.0.0.1"])
        .start()
        .await;
    for (header, value, own_scheme) in [
        ("x-forwarded-proto", "https", "https"),
        ("x-forwarded-proto", "HTTPS", "https"),
        ("x-forwarded-proto", "http", "http"),
        ("x-forwarded-proto", "https, http", "https"),
        ("forwarded", "for=192.0.2.1;proto=https", "https"),
        (
            "forwarded",
            "for=192.0.2.1;proto=http, for=10.0.0.1",
            "http",
        ),
        ("x-forwarded-proto", "", ""),
        ("x-forwarded-proto", "nonsense", ""),
        // The header does not contain the scheme.
        ("forwarded", "for=192.0.2.1", "https"),
    ] {
        for scheme in ["https", "http"] {
            let origin = format!("{scheme}://app.example.com");
            let headers = [
                ("host", "app.example.com"),
                ("origin", &origin),
                (header, value),
            ];
            let answer = ask_with(&app, &headers).await;
            let is_own = scheme == own_scheme;
            assert_eq!(
                answer.status == 200,
                is_own,
                "{value:?} {origin}: {answer:?}"
            );
        }
    }
    let both = [
        ("host", "app.example.com"),
        ("origin", "https://app.example.com"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "proto=http"),
    ];
    ask_with(&app, &both).await.assert_error(403, "cross_site");
}

#[actix_web::test]
async fn public_origin_is_the_own_origin_whatever_the_host_header() {
    let origin = "https://app.example.com";
    let app = Gate::standard()
        .server("public_origin", origin)
        .start()
        .await;
    for (host, origin, is_own) in [
        ("gate:8080", "https://app.example.com", true),
        ("gate:8080", "https://app.example.com:443", true),
        ("evil.example", "https://evil.example", false),
        ("app.example.com", "http://app.example.com", false),
        ("127.0.0.1", "http://127.0.0.1", false),
        ("gate:8080", "null", false),
    ] {
        // Browsers treat a page of a host name that was pointed here as the same origin.
        for site in [None, Some("same-origin"), Some("same-site")] {
            let mut headers = vec![("host", host), ("origin", origin)];
            headers.extend(site.map(|site| ("sec-fetch-site", site)));
            let answer = ask_with(&app, &headers).await;
            assert_eq!(answer.status == 200, is_own, "{site:?} {host} {origin}");
        }
    }
    for (site, status) in [("same-origin", 200), ("none", 200), ("cross-site", 403)] {
        let headers = [("host", "gate:8080"), ("sec-fetch-site", site)];
        assert_eq!(ask_with(&app, &headers).await.status, status, "{site}");
    }
}
