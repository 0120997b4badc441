//! Pages of other origins: what they may send and read.

use crate::{
    helpers::{Answer, Gate, ROUTE, SESSION, TestApp, Token, forwarded, rate_limit, settings},
    process::{run, text, write_config},
    real_parts::blocks,
};
use actix_web::http::Method;
use serde_json::json;

const PATTERNS: [&str; 5] = [
    "https://app.example.com",
    "https://*.example.com",
    "https://app-*.vercel.app",
    "http://localhost:3000",
    "capacitor://localhost",
];

async fn app() -> TestApp {
    Gate::accepting(["app", "browser"])
        .server("allowed_origins", PATTERNS)
        .start()
        .await
}

/// What a page may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    Everything,
    BearerOnly,
    Nothing,
}

const ORIGINS: &[(&str, May)] = &[
    ("https://app.example.com", May::Everything),
    ("https://shop.example.com", May::Everything),
    ("http://localhost:3000", May::Everything),
    ("capacitor://localhost", May::Everything),
    ("https://app-1.vercel.app", May::BearerOnly),
    ("https://app-evil.vercel.app", May::BearerOnly),
    ("https://example.com", May::Nothing),
    ("https://a.b.example.com", May::Nothing),
    ("https://evilexample.com", May::Nothing),
    ("https://app.example.com.evil.example", May::Nothing),
    ("https://app.example.com:8443", May::Nothing),
    ("http://app.example.com", May::Nothing),
    ("https://evil.vercel.app", May::Nothing),
    ("http://localhost", May::Nothing),
    ("http://localhost:3001", May::Nothing),
    ("https://localhost:3000", May::Nothing),
    ("ionic://localhost", May::Nothing),
    ("capacitor://localhost.evil.example", May::Nothing),
    ("null", May::Nothing),
    ("", May::Nothing),
    ("*", May::Nothing),
    ("https://*.example.com", May::Nothing),
    ("https://app-*.vercel.app", May::Nothing),
    (
        "https://app.example.com, https://evil.example",
        May::Nothing,
    ),
];

/// Checks that an answer lets the page of `origin` read what it may, and nothing about other origins.
#[track_caller]
fn assert_readable(answer: &Answer, origin: &str, may: May) {
    let has = |name: &str| answer.headers.contains_key(name);
    let cors: Vec<_> = answer
        .headers
        .keys()
        .filter(|name| name.as_str().starts_with("access-control-"))
        .collect();
    if may == May::Nothing {
        assert!(cors.is_empty(), "{origin}: {cors:?}");
    } else {
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, origin);
        assert_eq!(
            has("access-control-allow-credentials"),
            may == May::Everything,
            "{origin}"
        );
    }
    let mut vary = answer.headers.get_all("vary");
    assert!(vary.any(|value| value == "origin"), "{answer:?}");
}

#[actix_web::test]
async fn a_page_may_do_what_the_pattern_of_its_origin_allows() {
    let app = app().await;
    let token = Token::of("user_1").sign();
    let session = app.request(Method::POST, SESSION).bearer(&token);
    let session = session.send().await;
    for (origin, may) in ORIGINS {
        for site in [None, Some("cross-site")] {
            let ask = || {
                let request = app.ask().header("origin", origin);
                match site {
                    Some(site) => request.header("sec-fetch-site", site),
                    None => request,
                }
            };
            // A token that the page's script knows.
            let answer = ask().bearer(&token).send().await;
            answer.assert_token();
            assert_readable(&answer, origin, *may);
            // Cookies, which the browser adds.
            for cookie in [session.cookie(), &format!("__session={token}")] {
                let answer = ask().header("cookie", cookie).send().await;
                if *may == May::Everything {
                    answer.assert_token();
                } else {
                    answer.assert_error(403, "cross_site");
                }
                assert_readable(&answer, origin, *may);
            }
            let answer = ask().send().await;
            answer.assert_error(401, "not_signed_in");
            assert_readable(&answer, origin, *may);
        }
        let unknown = app.request(Method::GET, "/nope").header("origin", origin);
        assert_readable(&unknown.send().await, origin, *may);
    }
    // Two origins count as none.
    let two = app
        .ask()
        .header("origin", "https://app.example.com")
        .header("origin", "https://app.example.com")
        .bearer(&token);
    assert_readable(&two.send().await, "", May::Nothing);
    // Without an origin there is nothing to grant, but `vary` still tells caches about the origin.
    let without = app.ask().bearer(&token).send().await;
    assert_readable(&without, "", May::Nothing);
}

#[actix_web::test]
async fn the_origins_of_the_guides_are_allowed() {
    let app = Gate::standard()
        .include(&blocks("docs/frontend.md", "toml").remove(0))
        .include(&blocks("docs/proxies.md", "toml").remove(0))
        .start()
        .await;
    for (origin, may) in ORIGINS {
        // The guides do not list this origin.
        if *origin == "http://localhost:3000" {
            continue;
        }
        let answer = app.request(Method::GET, "/nope").header("origin", origin);
        assert_readable(&answer.send().await, origin, *may);
    }
}

#[actix_web::test]
async fn preflights_succeed_only_for_allowed_origins() {
    let app = app().await;
    for (origin, may) in ORIGINS {
        let preflight = app
            .request(Method::OPTIONS, ROUTE)
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization");
        let answer = preflight.send().await;
        assert_readable(&answer, origin, *may);
        if *may == May::Nothing {
            answer.assert_error(400, "bad_request");
        } else {
            assert_eq!(answer.status, 200, "{origin}");
            let headers = answer.header("access-control-allow-headers");
            assert_eq!(headers, "authorization");
        }
    }
}

#[actix_web::test]
async fn a_gate_without_allowed_origins_sends_no_cors_headers() {
    let app = TestApp::start().await;
    let origin = "https://app.example.com";
    let answer = app.ask_as(&Token::of("user_1")).await;
    assert_eq!(answer.header("vary"), "");
    let preflight = app
        .request(Method::OPTIONS, ROUTE)
        .header("origin", origin)
        .header("access-control-request-method", "POST");
    let answer = preflight.send().await;
    answer.assert_error(405, "method_not_allowed");
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

#[test]
fn check_warns_of_valid_settings_that_are_rarely_intended() {
    let warnings = |gate: Gate| {
        let (_folder, path) = write_config(&gate, "https://api.imgwire.dev");
        let checked = run(&["check", "--config", path.to_str().unwrap()]);
        let output = text(&checked.stdout);
        assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
        // No policy accepts the identity `edge`.
        let warnings = output
            .lines()
            .filter(|line| line.starts_with("warning: ") && !line.contains("nothing uses it"));
        warnings.map(str::to_owned).collect::<Vec<_>>()
    };
    let gate = || Gate::accepting(["app"]);
    let behind = |proxies: &[&str]| {
        let gate = gate().identity("edge", forwarded("X-User"));
        gate.server("trusted_proxies", proxies)
    };
    let private = [
        "127.0.0.1/32",
        "10.0.0.0/8",
        "fd00::/8",
        "fc00::/7",
        "2400:cb00::/32",
        "104.16.0.0/13",
    ];
    assert_eq!(warnings(behind(&private)), [""; 0]);
    for everyone in [
        &["0.0.0.0/0"][..],
        &["127.0.0.1/32", "::/0"],
        &["0.0.0.0/1", "128.0.0.0/1"],
        &["2000::/3"],
    ] {
        let [identity, proxies] = &warnings(behind(everyone))[..] else {
            panic!("{everyone:?}");
        };
        assert!(proxies.contains("gate.toml:") && proxies.contains("server.trusted_proxies: "));
        assert!(identity.contains("identities.edge: any client can sign in as any user"));
    }
    for (cookie, warning) in [
        (
            json!({ "name": "gate", "domain": "example.com" }),
            "session.cookie: every host of `example.com`",
        ),
        (
            json!({ "name": "gate", "path": "/api" }),
            "session.cookie: browsers send the session cookie only to paths below `/api`",
        ),
        (
            json!({ "partitioned": true }),
            "session.cookie: `partitioned` is for pages that other sites embed",
        ),
    ] {
        let warnings = warnings(gate().session("cookie", cookie));
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(warning), "{warnings:?}");
    }
    let partitioned = json!({ "partitioned": true, "same_site": "none" });
    assert_eq!(warnings(gate().session("cookie", partitioned)), [""; 0]);
}

#[test]
fn check_warns_of_sessions_that_no_identity_accepts() {
    let config = Gate::bare()
        .without("identities.browser")
        .policy("burst", rate_limit().per([""; 0]).limit(1))
        .chain(["burst"])
        .config("https://api.imgwire.dev", std::path::Path::new("data"));
    let environment = |_: &str| Some("k".repeat(64));
    let settings = settings::load("gate.toml", &config, &environment).unwrap();
    let warnings = settings.warnings.to_string();
    let line = config
        .lines()
        .position(|line| line == "[session.key]")
        .unwrap()
        + 1;
    let expected = format!("gate.toml:{line}:2: session: no identity has kind");
    let mut lines = warnings.lines();
    assert!(lines.any(|line| line.starts_with(&expected)), "{warnings}");
}
