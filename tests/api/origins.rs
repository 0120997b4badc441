//! Pages of other origins: which ones the config allows, what they may send, and what they can read.

use actix_web::http::Method;
use imgwire_gate::server::settings;

use crate::{
    helpers::{Answer, ROUTE, Recipe, SESSION, TestApp, Token},
    process::{run, text, write_config},
    real_parts::blocks,
};

const PATTERNS: &str = r#"allowed_origins = [
    "https://app.example.com",
    "https://*.example.com",
    "https://app-*.vercel.app",
    "http://localhost:3000",
    "capacitor://localhost",
]"#;

async fn app() -> TestApp {
    let recipe = Recipe {
        server: PATTERNS.into(),
        ..Recipe::accepting(r#"["app", "browser"]"#, "")
    };
    recipe.start().await
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

/// Checks that an answer lets the page of `origin` read what it may, and says nothing else about other origins.
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
async fn a_page_gets_what_the_pattern_of_its_origin_allows() {
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
    // Two origins are none.
    let two = app
        .ask()
        .header("origin", "https://app.example.com")
        .header("origin", "https://app.example.com")
        .bearer(&token);
    assert_readable(&two.send().await, "", May::Nothing);
    // Without an origin there is nothing to grant, and caches know that there might be.
    let without = app.ask().bearer(&token).send().await;
    assert_readable(&without, "", May::Nothing);
}

#[actix_web::test]
async fn the_origins_of_the_guides_are_allowed() {
    let server = |file: &str| blocks(file, "toml").remove(0).replace("[server]\n", "");
    let recipe = Recipe {
        server: server("docs/frontend.md") + &server("docs/proxies.md"),
        ..Recipe::default()
    };
    let app = recipe.start().await;
    for (origin, may) in ORIGINS {
        // The guide does not have it.
        if *origin == "http://localhost:3000" {
            continue;
        }
        let answer = app.request(Method::GET, "/nope").header("origin", origin);
        assert_readable(&answer.send().await, origin, *may);
    }
}

#[actix_web::test]
async fn a_preflight_is_answered_for_allowed_origins_only() {
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
async fn a_gate_that_allows_no_origin_says_nothing_about_origins() {
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
fn check_warns_of_what_is_possible_and_rarely_meant() {
    let with = |server: &str, session: &str, identities: &str| {
        let recipe = Recipe {
            server: server.into(),
            session: session.into(),
            ..Recipe::accepting(r#"["app"]"#, identities)
        };
        let (_folder, path) = write_config(&recipe, "https://api.imgwire.dev");
        let checked = run(&["check", "--config", path.to_str().unwrap()]);
        let output = text(&checked.stdout);
        assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
        let warnings = output.lines().filter(|line| line.starts_with("warning: "));
        warnings.map(str::to_owned).collect::<Vec<_>>()
    };
    let edge = "[identities.edge]\nkind = \"forwarded\"\nsubject = \"X-User\"";
    let proxies = |networks: &str| format!("trusted_proxies = {networks}");
    let private = r#"["127.0.0.1/32", "10.0.0.0/8", "fd00::/8", "fc00::/7", "2400:cb00::/32", "104.16.0.0/13"]"#;
    assert_eq!(with(&proxies(private), "", edge), Vec::<String>::new());
    for everyone in [
        r#"["0.0.0.0/0"]"#,
        r#"["127.0.0.1/32", "::/0"]"#,
        r#"["0.0.0.0/1", "128.0.0.0/1"]"#,
        r#"["2000::/3"]"#,
    ] {
        let [proxies, identity] = &with(&proxies(everyone), "", edge)[..] else {
            panic!("{everyone}");
        };
        assert!(proxies.contains("gate.toml:") && proxies.contains("server.trusted_proxies: "));
        assert!(identity.contains("identities.edge: any client can sign in as any user"));
    }
    for (cookie, warning) in [
        (
            r#"{ name = "gate", domain = "example.com" }"#,
            "session.cookie: every host of `example.com`",
        ),
        (
            r#"{ name = "gate", path = "/api" }"#,
            "session.cookie: browsers send the session cookie to paths below `/api` only",
        ),
        (
            "{ partitioned = true }",
            "session.cookie: a partitioned cookie",
        ),
    ] {
        let warnings = with("", &format!("cookie = {cookie}"), "");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(warning), "{warnings:?}");
    }
    let partitioned = r#"cookie = { partitioned = true, same_site = "none" }"#;
    assert_eq!(with("", partitioned, ""), Vec::<String>::new());
}

#[test]
fn sessions_that_nothing_accepts_are_warned_of() {
    let config = r#"
        [imgwire]
        api_key = { env = "KEY" }
        [session]
        key = { env = "KEY" }
        [policies.burst]
        kind = "rate_limit"
        per = []
        limit = 1
        period = "1s"
        [[routes]]
        policies = ["burst"]
    "#;
    let environment = |_: &str| Some("k".repeat(64));
    let settings = settings::load("gate.toml", config, &environment).unwrap();
    let warnings = settings.warnings.to_string();
    assert!(warnings.starts_with("gate.toml:4:9: session: no identity is of kind"));
}
