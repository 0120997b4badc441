//! The management listener, and graceful shutdown.

use std::time::Duration;

use actix_web::http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::helpers::{Gate, Misbehaviour, ROUTE, Request, TestApp, Token, env, eventually};

#[actix_web::test]
async fn a_new_gate_is_live_and_ready() {
    let app = TestApp::start().await;
    assert_eq!(app.manage("/livez").await.status, 200);
    let readiness = app.manage("/readyz").await;
    assert_eq!(readiness.status, 200);
    assert_eq!(readiness.json, json!({ "status": "ready", "degraded": [] }));
    app.manage("/nope").await.assert_error(404, "not_found");
}

#[actix_web::test]
async fn decisions_are_counted_by_route_policy_and_code() {
    let app = TestApp::start().await;
    app.ask_as(&Token::of("user_1")).await.assert_token();
    app.ask().send().await.assert_error(401, "not_signed_in");
    let line = |outcome: &str, policy: &str, code: &str| {
        format!(
            "imgwire_gate_decisions_total{{route=\"{ROUTE}\",outcome=\"{outcome}\",policy=\"{policy}\",code=\"{code}\"}}"
        )
    };
    assert_eq!(app.metric(&line("issued", "", "issued")).await, 1.0);
    assert_eq!(
        app.metric(&line("denied", "signed-in", "not_signed_in"))
            .await,
        1.0
    );
    let text = app.manage("/metrics").await.text;
    for metric in [
        "imgwire_gate_upstream_attempts_total 1",
        "imgwire_gate_chain_seconds_count 2",
        "imgwire_gate_in_flight 0",
        "imgwire_gate_build_info{version=",
    ] {
        assert!(text.contains(metric), "{metric} in {text}");
    }
}

#[actix_web::test]
async fn no_metric_label_contains_a_value_of_a_client() {
    let app = TestApp::start().await;
    for index in 0..50 {
        let marked = format!("marker{index}");
        let request = app
            .ask()
            .bearer(&Token::of(&marked).sign())
            .header("x-request-id", &marked);
        request.header("x-workspace-id", &marked).send().await;
        app.request(actix_web::http::Method::POST, &format!("/{marked}"))
            .send()
            .await;
    }
    let text = app.manage("/metrics").await.text;
    assert!(!text.contains("marker"), "{text}");
}

#[actix_web::test]
async fn a_stopping_gate_finishes_requests_and_is_not_ready() {
    let mut app = TestApp::start().await;
    app.imgwire
        .misbehave_next([Misbehaviour::Slow(Duration::from_millis(500))]);
    let request = app.ask().bearer(&Token::of("user_1").sign());
    let running = actix_web::rt::spawn(request.send());
    eventually("the request", async || app.imgwire.asked() == 1).await;
    app.begin_stop();
    eventually("not ready", async || {
        app.manage("/readyz").await.status == 503
    })
    .await;
    let readiness = app.manage("/readyz").await.json;
    assert_eq!(
        readiness,
        json!({ "status": "failing", "failing": ["draining"], "degraded": [] })
    );
    let answer = running.await.unwrap();
    answer.assert_token();
    app.stopped().await;
}

#[actix_web::test]
async fn a_stopping_gate_waits_no_longer_than_its_grace_period() {
    let mut app = Gate::standard()
        .server("shutdown_grace", "300ms")
        .start()
        .await;
    app.imgwire.misbehave(Some(Misbehaviour::Hang));
    let request = app.ask().bearer(&Token::of("user_1").sign());
    let running = actix_web::rt::spawn(request.send());
    eventually("the request", async || app.imgwire.asked() == 1).await;
    let started = std::time::Instant::now();
    app.begin_stop();
    app.stopped().await;
    assert!(started.elapsed() < Duration::from_secs(3));
    running.abort();
}

/// Requests to the management endpoints, and whether the endpoint is open without a token.
fn endpoints(app: &TestApp) -> Vec<(bool, Request)> {
    let request = |method, path| app.request_management(method, path);
    vec![
        (true, request(Method::GET, "/livez")),
        (true, request(Method::GET, "/readyz")),
        (true, request(Method::GET, "/metrics")),
        (false, request(Method::GET, "/openapi.json")),
        (false, request(Method::GET, "/log")),
        (false, request(Method::PUT, "/log")),
        (false, request(Method::POST, "/explain")),
        (false, request(Method::GET, "/quota/daily?key=ws_1")),
        (false, request(Method::DELETE, "/quota/daily?key=ws_1")),
        (false, request(Method::GET, "/images?subject=user_1")),
        (false, request(Method::GET, "/images/export")),
        (false, request(Method::DELETE, "/subjects/user_1/images")),
        (false, request(Method::GET, "/jobs/1")),
        (false, request(Method::GET, "/nowhere")),
        (false, request(Method::GET, "/livez/")),
        (false, request(Method::GET, "//readyz")),
    ]
}

#[actix_web::test]
async fn a_management_token_is_required_even_from_this_machine() {
    let token = "a management token";
    let app = Gate::standard()
        .management("token", env("TEST_MANAGEMENT_TOKEN"))
        .secret("TEST_MANAGEMENT_TOKEN", token)
        .start()
        .await;
    for (is_open, request) in endpoints(&app) {
        let answer = request.send().await;
        if is_open {
            assert_eq!(answer.status, 200, "{answer:?}");
        } else {
            answer.assert_error(401, "not_signed_in");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    for (is_open, request) in endpoints(&app) {
        let answer = request.bearer("another token").send().await;
        if !is_open {
            answer.assert_error(401, "invalid_credentials");
        }
    }
    let log = app.request_management(Method::GET, "/log").bearer(token);
    assert_eq!(log.send().await.status, 200);
    let explain = app
        .request_management(Method::POST, "/explain")
        .bearer(token);
    assert_eq!(explain.json(&json!({})).await.status, 200);
}

#[actix_web::test]
async fn an_unknown_host_name_reaches_only_the_open_endpoints() {
    let hosts = ["gate-admin.internal"];
    let app = Gate::standard().management("hosts", hosts).start().await;
    for host in [
        "evil.example",
        "evil.example:9090",
        "localhost.evil.example",
    ] {
        for (is_open, request) in endpoints(&app) {
            let answer = request.header("host", host).send().await;
            if is_open {
                assert_eq!(answer.status, 200, "{answer:?}");
            } else {
                answer.assert_error(403, "cross_site");
            }
        }
    }
    for host in [
        "127.0.0.1",
        "192.0.2.7:9090",
        "[::1]:9090",
        "localhost:9090",
        "gate-admin.internal",
        "Gate-Admin.internal:9090",
    ] {
        let log = app.request_management(Method::GET, "/log");
        let answer = log.header("host", host).send().await;
        assert_eq!(answer.status, 200, "{host}: {answer:?}");
    }
}

/// The status of a raw request to the management listener.
async fn raw_status(app: &TestApp, request: &str) -> u16 {
    let address = app.management.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[actix_web::test]
async fn the_host_of_a_management_request_comes_from_its_target_and_its_header() {
    let app = TestApp::start().await;
    let status = async |request: &str| raw_status(&app, request).await;
    let close = "Connection: close\r\n\r\n";
    assert_eq!(status(&format!("GET /log HTTP/1.0\r\n{close}")).await, 200);
    for (target, host, expected) in [
        ("/log", "localhost", 200),
        ("http://localhost/log", "localhost", 200),
        ("http://evil.example/log", "localhost", 403),
        ("http://localhost/log", "evil.example", 403),
        ("/log", "", 403),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{close}");
        assert_eq!(status(&request).await, expected, "{request}");
    }
}
