//! Browsers: ambient credentials, and CORS.

use actix_web::http::Method;

use serde_json::json;

use crate::{
    helpers::{Answer, Gate, ROUTE, SESSION, TestApp, Token, forwarded, jwt, remote_session},
    service::{Reply, Service},
};

fn builder() -> Gate {
    Gate::standard().server("allowed_origins", ["https://app.example.com"])
}

async fn app() -> TestApp {
    builder().start().await
}

/// Combinations of `Sec-Fetch-Site` and `Origin`, and whether a page that sends them may use a cookie.
fn table(own: &str) -> Vec<(Option<&'static str>, Option<String>, bool)> {
    let allowed = || Some("https://app.example.com".to_owned());
    let foreign = || Some("https://evil.example".to_owned());
    let null = || Some("null".to_owned());
    let own = || Some(own.to_owned());
    vec![
        (None, None, true),
        (None, allowed(), true),
        (None, own(), true),
        (None, foreign(), false),
        (None, null(), false),
        (Some("same-origin"), None, true),
        (Some("same-origin"), own(), true),
        (Some("none"), None, true),
        (Some("same-site"), None, false),
        (Some("same-site"), foreign(), false),
        (Some("same-site"), allowed(), true),
        (Some("cross-site"), None, false),
        (Some("cross-site"), null(), false),
        (Some("cross-site"), foreign(), false),
        (Some("cross-site"), allowed(), true),
        (Some("nonsense"), None, false),
    ]
}

async fn send(
    app: &TestApp,
    method: Method,
    path: &str,
    credential: (&str, &str),
    site: Option<&str>,
    origin: Option<&str>,
) -> Answer {
    let mut request = app.request(method, path).header(credential.0, credential.1);
    if let Some(site) = site {
        request = request.header("sec-fetch-site", site);
    }
    if let Some(origin) = origin {
        request = request.header("origin", origin);
    }
    request.send().await
}

#[actix_web::test]
async fn a_cookie_is_accepted_only_from_its_own_and_allowed_origins() {
    let app = app().await;
    let token = Token::of("user_1").sign();
    let session = app
        .request(Method::POST, SESSION)
        .bearer(&token)
        .send()
        .await;
    let of_app = format!("__session={token}");
    for cookie in [session.cookie(), &of_app] {
        for (site, origin, may) in table(&app.url) {
            let credential = ("cookie", cookie);
            let answer = send(
                &app,
                Method::POST,
                ROUTE,
                credential,
                site,
                origin.as_deref(),
            )
            .await;
            if may {
                answer.assert_token();
            } else {
                answer.assert_error(403, "cross_site");
            }
        }
    }
}

/// A gate whose users a proxy forwards, or the app knows by its cookie or a header.
async fn app_of_others(site: &Service, forward: &[&str], ambient: bool) -> TestApp {
    site.answer("/session", Reply::json(&json!({ "id": "user_1" })));
    let app = remote_session(&format!("{}/session", site.url), forward, "/id");
    Gate::accepting(["edge", "site"])
        .server("allowed_origins", ["https://app.example.com"])
        .server("trusted_proxies", ["127.0.0.1"])
        .exchange(["edge", "site"])
        .identity("edge", forwarded("X-User").ambient(ambient))
        .identity("site", app.ambient(ambient))
        .start()
        .await
}

#[actix_web::test]
async fn ambient_headers_are_accepted_from_the_same_origins_as_cookies() {
    let site = Service::start();
    let forward = ["cookie:sid", "header:x-key", "header:authorization"];
    let app = app_of_others(&site, &forward, true).await;
    let allowance = format!("{ROUTE}/allowance");
    for credential in [
        ("x-user", "user_1"),
        ("cookie", "sid=1"),
        ("x-key", "1"),
        // Schemes for which browsers show a dialog; afterwards they send the credentials with every request.
        ("authorization", "Basic YWRhOnNlc2FtZQ=="),
        ("authorization", "negotiate YWRhOnNlc2FtZQ=="),
        ("authorization", "Bearer 1"),
    ] {
        for (from, origin, may) in table(&app.url) {
            // Only the page's script can set a bearer token.
            let may = may || credential.1.starts_with("Bearer");
            for (method, path, status) in [
                (Method::POST, ROUTE, 200),
                (Method::GET, allowance.as_str(), 200),
                (Method::POST, SESSION, 204),
            ] {
                let answer = send(&app, method, path, credential, from, origin.as_deref()).await;
                if may {
                    assert_eq!(answer.status, status, "{credential:?} {from:?} {origin:?}");
                } else if path == allowance {
                    assert_eq!(answer.json["allowed"], false, "{answer:?}");
                    assert_eq!(answer.code(), "cross_site");
                } else {
                    answer.assert_error(403, "cross_site");
                }
            }
        }
    }
    let foreign = ("x-key", "foreign");
    let origin = Some("https://evil.example");
    let before = site.seen("/session").len();
    send(&app, Method::POST, ROUTE, foreign, None, origin)
        .await
        .assert_error(403, "cross_site");
    assert_eq!(
        site.seen("/session").len(),
        before,
        "the app is not even asked"
    );
}

#[actix_web::test]
async fn headers_that_are_not_ambient_are_accepted_from_every_origin() {
    let site = Service::start();
    let app = app_of_others(&site, &["header:x-key"], false).await;
    for credential in [("x-user", "user_1"), ("x-key", "1")] {
        for (from, origin, _) in table(&app.url) {
            let answer = send(
                &app,
                Method::POST,
                ROUTE,
                credential,
                from,
                origin.as_deref(),
            );
            answer.await.assert_token();
        }
    }
}

/// Cloudflare Access sends such a header for the cookie of a signed-in browser.
#[actix_web::test]
async fn a_token_in_its_own_header_is_ambient_unless_the_config_says_otherwise() {
    let standard = jwt()
        .audience(["imgwire-gate"])
        .from(["bearer", "header:cf-access-jwt-assertion"]);
    for (identity, is_ambient) in [
        (standard.clone(), true),
        (standard.clone().ambient(true), true),
        (standard.ambient(false), false),
    ] {
        let app = Gate::accepting(["access"])
            .server("allowed_origins", ["https://app.example.com"])
            .exchange(["access"])
            .identity("access", identity)
            .start()
            .await;
        let token = Token::of("user_1").sign();
        for (site, origin, may) in table(&app.url) {
            for (method, path, status) in [(Method::POST, ROUTE, 200), (Method::POST, SESSION, 204)]
            {
                let credential = ("cf-access-jwt-assertion", token.as_str());
                let origin = origin.as_deref();
                let answer = send(&app, method, path, credential, site, origin).await;
                if may || !is_ambient {
                    assert_eq!(answer.status, status, "{is_ambient} {site:?} {origin:?}");
                } else {
                    answer.assert_error(403, "cross_site");
                }
            }
            let bearer = format!("Bearer {token}");
            let credential = ("authorization", bearer.as_str());
            let answer = send(
                &app,
                Method::POST,
                ROUTE,
                credential,
                site,
                origin.as_deref(),
            );
            answer.await.assert_token();
        }
    }
}

#[actix_web::test]
async fn a_foreign_page_can_neither_read_nor_end_a_session() {
    let app = app().await;
    let token = Token::of("user_1").sign();
    let session = app
        .request(Method::POST, SESSION)
        .bearer(&token)
        .send()
        .await;
    for (site, origin, may) in table(&app.url) {
        for (method, status) in [(Method::GET, 200), (Method::DELETE, 204)] {
            let credential = ("cookie", session.cookie());
            let answer = send(&app, method, SESSION, credential, site, origin.as_deref()).await;
            if may {
                assert_eq!(answer.status, status);
            } else {
                answer.assert_error(403, "cross_site");
            }
        }
    }
}

#[actix_web::test]
async fn a_bearer_token_is_accepted_from_every_origin() {
    let app = app().await;
    let bearer = format!("Bearer {}", Token::of("user_1").sign());
    for (site, origin, _) in table(&app.url) {
        let credential = ("authorization", bearer.as_str());
        send(
            &app,
            Method::POST,
            ROUTE,
            credential,
            site,
            origin.as_deref(),
        )
        .await
        .assert_token();
    }
}

#[actix_web::test]
async fn a_page_of_an_allowed_origin_can_read_every_answer() {
    let app = app().await;
    let token = Token::of("user_1").sign();
    let origin = "https://app.example.com";
    for answer in [
        app.ask()
            .bearer(&token)
            .header("origin", origin)
            .send()
            .await,
        app.ask().header("origin", origin).send().await,
        app.request(Method::POST, "/nope")
            .header("origin", origin)
            .send()
            .await,
        app.request(Method::PUT, ROUTE)
            .header("origin", origin)
            .send()
            .await,
        app.ask()
            .header("origin", origin)
            .header("content-type", "text/plain")
            .send_body("x")
            .await,
    ] {
        assert_eq!(
            answer.header("access-control-allow-origin"),
            origin,
            "{answer:?}"
        );
        assert_eq!(answer.header("access-control-allow-credentials"), "true");
        let exposed = answer.header("access-control-expose-headers");
        for field in [
            "ratelimit",
            "ratelimit-policy",
            "retry-after",
            "x-request-id",
        ] {
            assert!(
                exposed
                    .split(", ")
                    .any(|name| name.eq_ignore_ascii_case(field)),
                "{exposed}"
            );
        }
        assert!(answer.header("vary").to_lowercase().contains("origin"));
        answer.assert_envelope();
    }
}

#[actix_web::test]
async fn a_page_of_another_origin_can_read_no_answer() {
    let app = app().await;
    let token = Token::of("user_1").sign();
    let answer = app
        .ask()
        .bearer(&token)
        .header("origin", "https://evil.example")
        .send()
        .await;
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

#[actix_web::test]
async fn preflights_are_answered_and_consume_no_limit() {
    let app = builder().set("policies.burst.limit", 1).start().await;
    for _ in 0..5 {
        let preflight = app
            .request(Method::OPTIONS, ROUTE)
            .header("origin", "https://app.example.com")
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "authorization, content-type, x-workspace-id",
            );
        let answer = preflight.send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(
            answer
                .header("access-control-allow-methods")
                .contains("POST")
        );
        let headers = answer.header("access-control-allow-headers").to_lowercase();
        assert!(
            headers.contains("authorization") && headers.contains("x-workspace-id"),
            "{headers}"
        );
    }
    app.ask_as(&Token::of("user_1")).await.assert_token();
}

#[actix_web::test]
async fn a_preflight_of_another_origin_is_a_400_error() {
    let app = app().await;
    let preflight = app
        .request(Method::OPTIONS, ROUTE)
        .header("origin", "https://evil.example")
        .header("access-control-request-method", "POST");
    let answer = preflight.send().await;
    answer.assert_error(400, "bad_request");
    assert_eq!(answer.header("access-control-allow-origin"), "");
}
