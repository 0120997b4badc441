//! The duration of calls to other services, as OpenTelemetry measures it.

use std::{collections::BTreeMap, time::Duration};

use jsonwebtoken::Algorithm;

use crate::{
    helpers::{Gate, TestApp, Token, eventually, published_jwt},
    hostile_peer::{Act, HostilePeer, response},
    keys::{JWKS, ask},
    outbound_calls::{CALLS, Call, gate_before},
    service::{Reply, Service},
    signing::{SigningKey, set},
};

/// The attempts to call the service at `url`, by method, status and error type.
async fn attempts(gate: &TestApp, url: &str) -> BTreeMap<String, u64> {
    let port = url.rsplit(':').next().unwrap();
    let server = format!(r#",server_address="127.0.0.1",server_port="{port}","#);
    let text = gate.manage("/metrics").await.text;
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("http_client_request_duration_seconds_count{"));
    lines
        .filter_map(|line| {
            let (labels, count) = line.split_once("} ").unwrap();
            let (method_and_status, error) = labels.split_once(&server)?;
            let value = |label: &str| label.split('"').nth(1).unwrap().to_owned();
            let (method, status) = method_and_status.split_once(',').unwrap();
            let key = format!("{} {} {}", value(method), value(status), value(error));
            Some((key.trim().to_owned(), count.parse().unwrap()))
        })
        .collect()
}

fn counted<const N: usize>(expected: [(&str, u64); N]) -> BTreeMap<String, u64> {
    let expected = expected.map(|(key, count)| (key.to_owned(), count));
    expected.into_iter().collect()
}

impl Call {
    fn method(self) -> &'static str {
        match self {
            Self::Membership | Self::RemoteIdentity => "GET",
            Self::PlainPolicy | Self::OpaPolicy | Self::Introspection | Self::Imgwire => "POST",
        }
    }
}

#[actix_web::test]
async fn calls_of_every_kind_are_measured_by_method_status_and_service() {
    for call in CALLS {
        let (gate, peer) = gate_before(call, "2s", |_, _, right| vec![Act::Send(right)]).await;
        for _ in 0..3 {
            assert_eq!(call.ask(&gate, "user_2").await.status, 200);
        }
        let key = format!("{} 200", call.method());
        let expected = counted([(&key, 3)]);
        assert_eq!(attempts(&gate, &peer.url()).await, expected, "{call:?}");
    }
}

#[actix_web::test]
async fn fetches_of_published_keys_are_measured() {
    let issuer = Service::start();
    let key = SigningKey::new("one", Algorithm::ES256);
    issuer.answer(JWKS, Reply::json(&set(&[&key])));
    let idp = published_jwt(["ES256"], &format!("{}{JWKS}", issuer.url));
    let gate = Gate::accepting(["idp"]).identity("idp", idp).start().await;
    let token = key.sign(&Token::of("user_1"));
    ask(&gate, &token).await.assert_token();
    let expected = counted([("GET 200", 1)]);
    assert_eq!(attempts(&gate, &issuer.url).await, expected);
    // The token came from the emulator, which is another service.
    let expected = counted([("POST 200", 1)]);
    assert_eq!(attempts(&gate, gate.imgwire.url()).await, expected);
}

#[actix_web::test]
async fn each_attempt_of_a_failing_call_is_measured_with_its_error() {
    let call = Call::Imgwire;
    for (acts, attempt) in [
        (vec![Act::Send(response(503, "{}"))], "POST 503 503"),
        (vec![Act::Reset], "POST  broken"),
        (vec![Act::Fall], "POST  timeout"),
        // A service cannot add time series at will.
        (vec![Act::Send(response(599, "{}"))], "POST 500 500"),
    ] {
        let (gate, peer) = gate_before(call, "300ms", move |_, _, _| acts.clone()).await;
        call.ask(&gate, "user_2")
            .await
            .assert_error(500, "imgwire_failed");
        // One retry is configured.
        let expected = counted([(attempt, 2)]);
        assert_eq!(attempts(&gate, &peer.url()).await, expected);
    }
    let large = response(200, &"x".repeat(100_000));
    let (gate, peer) = gate_before(call, "2s", move |_, _, _| vec![Act::Send(large.clone())]).await;
    call.ask(&gate, "user_2").await;
    let expected = counted([("POST  too_large", 1)]);
    assert_eq!(attempts(&gate, &peer.url()).await, expected);
}

#[actix_web::test]
async fn a_call_to_a_closed_port_is_measured_as_unreachable() {
    let url = "http://127.0.0.1:9";
    let gate = Call::Membership.builder(url, "1s").start().await;
    assert_eq!(Call::Membership.ask(&gate, "user_2").await.status, 500);
    let expected = counted([("GET  unreachable", 1)]);
    assert_eq!(attempts(&gate, url).await, expected);
}

#[actix_web::test]
async fn an_attempt_that_a_second_one_overtakes_is_measured_as_cancelled() {
    // The second request on a connection gets no response.
    let (gate, peer) = gate_before(Call::Membership, "1s", |_, asked, right| {
        if asked.earlier == 1 {
            vec![Act::Fall]
        } else {
            vec![Act::Send(right)]
        }
    })
    .await;
    // Each worker has connections of its own.
    eventually("a request on a kept connection", async || {
        assert_eq!(Call::Membership.ask(&gate, "user_2").await.status, 200);
        let attempts = attempts(&gate, &peer.url()).await;
        attempts.get("GET  cancelled") == Some(&1)
    })
    .await;
    let text = gate.manage("/metrics").await.text;
    let sum = text.lines().find(|line| {
        line.starts_with("http_client_request_duration_seconds_sum") && line.contains("cancelled")
    });
    let seconds: f64 = sum.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!((0.4..1.0).contains(&seconds), "{seconds}");
}

#[actix_web::test]
async fn the_duration_of_a_call_ends_with_its_response() {
    let peer = HostilePeer::start(|_: &_| {
        let mut response = response(200, r#"{"token":"ut_1"}"#);
        let end = response.split_off(response.len() - 1);
        let pause = Act::Pause(Duration::from_millis(300));
        vec![Act::Send(response), pause, Act::Send(end)]
    });
    let gate = Call::Imgwire.builder(&peer.url(), "5s").start().await;
    Call::Imgwire.ask(&gate, "user_2").await.assert_token();
    let port = peer.url().rsplit(':').next().unwrap().to_owned();
    let labels = format!(
        r#"{{http_request_method="POST",http_response_status_code="200",server_address="127.0.0.1",server_port="{port}",error_type=""}}"#
    );
    let sum = format!("http_client_request_duration_seconds_sum{labels}");
    let seconds = gate.metric(&sum).await;
    assert!((0.3..2.0).contains(&seconds), "{seconds}");
}
