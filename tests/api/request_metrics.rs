//! `http_server_request_duration_seconds`: each request of the public listener, once.

use std::{collections::BTreeMap, time::Duration};

use actix_web::http::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    helpers::{Gate, ROUTE, SESSION, TestApp, Token, eventually, introspection},
    service::{Reply, Service},
};

/// The number of requests by method, route and status.
async fn counts(gate: &TestApp) -> BTreeMap<String, u64> {
    let text = gate.manage("/metrics").await.text;
    let lines = text.lines();
    let lines =
        lines.filter_map(|line| line.strip_prefix("http_server_request_duration_seconds_count{"));
    let counts = lines.map(|line| {
        let (labels, count) = line.split_once("} ").unwrap();
        let values: Vec<_> = labels.split('"').skip(1).step_by(2).collect();
        (values.join(" "), count.parse().unwrap())
    });
    counts.collect()
}

#[actix_web::test]
async fn every_request_is_measured_once_whatever_becomes_of_it() {
    let issuer = Service::start();
    let slow = Reply::json(&json!({ "active": false })).after(Duration::from_secs(60));
    issuer.answer("/introspect", slow);
    let gate = Gate::accepting(["app", "opaque"])
        .exchange(["app"])
        .identity(
            "opaque",
            introspection(&format!("{}/introspect", issuer.url)),
        )
        .server("body_limit", "1KiB")
        .server("request_timeout", "1s")
        .server("allowed_origins", ["https://app.example.com"])
        .start()
        .await;
    let allowance = format!("{ROUTE}/allowance");
    let mut expected = BTreeMap::<String, u64>::new();
    let mut expect = |key: String| *expected.entry(key).or_default() += 1;
    let token = Token::of("user_1").sign();

    gate.ask().bearer(&token).send().await.assert_token();
    expect(format!("POST {ROUTE} 200"));
    gate.ask().send().await.assert_error(401, "not_signed_in");
    expect(format!("POST {ROUTE} 401"));
    let read = gate.request(Method::GET, &allowance).bearer(&token);
    assert_eq!(read.send().await.status, 200);
    expect(format!("GET {allowance} 200"));
    let exchange = gate.request(Method::POST, SESSION).bearer(&token);
    assert_eq!(exchange.send().await.status, 204);
    expect(format!("POST {SESSION} 204"));
    // What is not known shares one route, and one method.
    for path in ["/nowhere", "/a", "/b/allowance"] {
        let answer = gate.request(Method::GET, path).send().await;
        answer.assert_error(404, "not_found");
        expect("GET  404".to_owned());
    }
    for method in ["BREW", "PROPFIND"] {
        let answer = gate.request(method.parse().unwrap(), ROUTE).send().await;
        answer.assert_error(405, "method_not_allowed");
        expect(format!("_OTHER {ROUTE} 405"));
    }
    let preflight = gate.request(Method::OPTIONS, ROUTE);
    let preflight = preflight.header("origin", "https://app.example.com");
    let preflight = preflight.header("access-control-request-method", "POST");
    assert_eq!(preflight.send().await.status, 200);
    expect(format!("OPTIONS {ROUTE} 200"));
    let json = || gate.ask().header("content-type", "application/json");
    json().send_body("{").await.assert_error(400, "bad_request");
    expect(format!("POST {ROUTE} 400"));
    let large = json().send_body(" ".repeat(2000)).await;
    large.assert_error(413, "body_too_large");
    expect(format!("POST {ROUTE} 413"));
    let text = gate.ask().header("content-type", "text/plain");
    let text = text.send_body("{}").await;
    text.assert_error(415, "unsupported_media_type");
    expect(format!("POST {ROUTE} 415"));

    // A body that does not arrive in time.
    let connect = async || {
        let address = gate.url.strip_prefix("http://").unwrap();
        TcpStream::connect(address).await.unwrap()
    };
    let mut stream = connect().await;
    let head = format!("POST {ROUTE} HTTP/1.1\r\nhost: gate\r\ncontent-length: 9\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(20), reading).await;
    expect(format!("POST {ROUTE} 400"));

    // A client that disconnects while its token is checked.
    let mut stream = connect().await;
    let head =
        format!("GET {allowance} HTTP/1.1\r\nhost: gate\r\nauthorization: Bearer opaque\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    eventually("the call", async || !issuer.seen("/introspect").is_empty()).await;
    stream.set_zero_linger().unwrap();
    drop(stream);
    expect(format!("GET {allowance} "));

    // Requests of the management listener are not among them.
    gate.manage("/livez").await;
    eventually("all requests", async || counts(&gate).await == expected).await;
}
