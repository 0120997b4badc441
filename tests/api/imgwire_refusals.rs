//! The state in which Imgwire refuses every request and no retry can help: when it begins and ends.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    helpers::{TestApp, Token, eventually},
    hostile_peer::{Act, response},
    imgwire_errors::{
        BEGINS, ENDS, KEY, Logged, PAYMENT, RIGHT, Upstream, degraded, domain_error, gate_before,
    },
};

#[actix_web::test]
async fn a_hundred_refusals_are_not_retried_and_leave_the_breaker_closed() {
    let upstream = Upstream::start();
    let gate = gate_before(&upstream)
        .imgwire("retries", 5)
        .imgwire("breaker", json!({ "failures": 3, "probe": "50ms" }))
        .start()
        .await;
    upstream.refuse("PaymentRequiredError");
    let user = Token::of("user_1");
    for answer in join_all((0..100).map(|_| gate.ask_as(&user))).await {
        answer.assert_error(500, "imgwire_failed");
    }
    assert_eq!(upstream.peer.requests(), 100);
    assert_eq!(gate.metric("imgwire_gate_breaker_opened_total").await, 0.0);
    assert_eq!(gate.metric("imgwire_gate_breaker_state").await, 0.0);
    let errors = r#"imgwire_gate_imgwire_errors_total{error_type="PaymentRequiredError"}"#;
    assert_eq!(gate.metric(errors).await, 100.0);
    upstream.accept();
    gate.ask_as(&user).await.assert_token();
}

#[actix_web::test]
async fn concurrent_requests_log_the_begin_and_the_end_of_a_refusal_once() {
    let upstream = Upstream::start();
    let gate = Logged::before(&upstream).await;
    let late = |bytes| [Act::Pause(Duration::from_millis(30)), Act::Send(bytes)];
    let accepted = response(200, r#"{"token":"ut_1"}"#);
    let refused = response(401, &domain_error("InvalidTokenError"));
    let rounds = 4;
    let asks = async |count: usize| {
        join_all((0..count).map(async |number| {
            // The upstream changes its mind in the middle of these requests.
            tokio::time::sleep(Duration::from_millis(number as u64)).await;
            gate.ask().await
        }))
        .await
    };
    for round in 0..rounds {
        for (response, message) in [(&refused, BEGINS), (&accepted, ENDS)] {
            let change = async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                upstream.acts(late(response.clone()));
            };
            tokio::join!(asks(100), change);
            // The last requests began after the change.
            asks(1).await;
            eventually("the line", async || gate.lines(message).len() == round + 1).await;
        }
    }
    gate.logged(rounds * 2 * 101).await;
    assert_eq!(gate.lines(BEGINS).len(), rounds);
    assert_eq!(gate.lines(ENDS).len(), rounds);
}

#[actix_web::test]
async fn a_new_reason_is_logged_once_and_one_success_ends_the_state() {
    let upstream = Upstream::start();
    let gate = Logged::before(&upstream).await;
    for error_type in ["InvalidTokenError", "PaymentRequiredError"] {
        upstream.refuse(error_type);
        for _ in 0..5 {
            gate.ask().await.assert_error(500, "imgwire_failed");
        }
    }
    assert_eq!(
        gate.degraded().await,
        json!([format!("imgwire: {}", PAYMENT.1)])
    );
    upstream.accept();
    for _ in 0..5 {
        gate.ask().await.assert_token();
    }
    gate.logged(15).await;
    let reasons: Vec<_> = gate.lines(BEGINS);
    let reasons: Vec<_> = reasons.iter().map(|line| &line["reason"]).collect();
    assert_eq!(reasons, [KEY.1, PAYMENT.1]);
    assert_eq!(gate.lines(ENDS).len(), 1);
}

#[actix_web::test]
async fn a_late_refusal_of_an_old_attempt_does_not_begin_an_ended_state_again() {
    let upstream = Upstream::start();
    let gate = Logged::before(&upstream).await;
    upstream.refuse("InvalidTokenError");
    gate.ask().await;
    let asked = upstream.peer.requests();
    let refused = response(401, &domain_error("InvalidTokenError"));
    let pause = Act::Pause(Duration::from_millis(800));
    upstream.acts([pause, Act::Send(refused)]);
    let old = async {
        gate.ask().await.assert_error(500, "imgwire_failed");
    };
    let new = async {
        eventually("the old request", async || upstream.peer.requests() > asked).await;
        upstream.accept();
        gate.ask().await.assert_token();
        assert_eq!(gate.degraded().await, json!([]));
    };
    tokio::join!(old, new);
    assert_eq!(gate.degraded().await, json!([]));
    gate.logged(3).await;
    assert_eq!(gate.lines(BEGINS).len(), 1);
    assert_eq!(gate.lines(ENDS).len(), 1);
}

#[actix_web::test]
async fn rate_limits_and_outages_are_retried_and_are_not_refusals() {
    let upstream = Upstream::start();
    let gate = Logged::before(&upstream).await;
    for status in [408, 429, 500, 502, 503] {
        let asked = upstream.peer.requests();
        upstream.respond(status, &domain_error("SomeError"));
        gate.ask().await.assert_error(500, "imgwire_failed");
        assert_eq!(upstream.peer.requests(), asked + 3, "{status}");
        assert_eq!(gate.degraded().await, json!([]), "{status}");
    }
    let counted = gate.metrics("imgwire_gate_imgwire_errors_total").await;
    assert_eq!(
        counted,
        [r#"imgwire_gate_imgwire_errors_total{error_type="other"} 15"#]
    );
    // They do not end a refusal either.
    upstream.refuse("InvalidTokenError");
    gate.ask().await;
    upstream.respond(503, "");
    gate.ask().await;
    assert_eq!(
        gate.degraded().await,
        json!([format!("imgwire: {}", KEY.1)])
    );
    gate.logged(7).await;
    assert_eq!(gate.lines(BEGINS).len(), 1);
    assert_eq!(gate.lines(ENDS).len(), 0);
}

async fn refusals(gate: &TestApp) -> Value {
    degraded(&gate.manage("/readyz").await)
}

#[actix_web::test]
async fn the_pool_shows_a_refusal_before_it_runs_out_of_tokens() {
    let upstream = Upstream::start();
    let pool = json!({ "size": 8, "max_age": "2m" });
    let gate = gate_before(&upstream).imgwire("pool", pool).start().await;
    let user = Token::of("user_1");
    eventually("a token in the pool", async || {
        gate.ask_as(&user).await.assert_token();
        gate.metric("imgwire_gate_pool_tokens").await >= 2.0
    })
    .await;
    upstream.refuse("PaymentRequiredError");
    gate.ask_as(&user).await.assert_token();
    let refused = json!([format!("imgwire: {}", PAYMENT.1)]);
    eventually("the state", async || refusals(&gate).await == refused).await;
}

#[actix_web::test]
async fn probes_of_the_breaker_begin_and_end_the_state_without_a_request() {
    let upstream = Upstream::start();
    let gate = gate_before(&upstream)
        .imgwire("retries", 0)
        .imgwire("breaker", json!({ "failures": 2, "probe": "50ms" }))
        .start()
        .await;
    let user = Token::of("user_1");
    let open = async || {
        upstream.respond(503, "");
        for _ in 0..2 {
            gate.ask_as(&user).await.assert_error(500, "imgwire_failed");
        }
        assert_ne!(gate.metric("imgwire_gate_breaker_state").await, 0.0);
    };
    open().await;
    assert_eq!(refusals(&gate).await, json!(["imgwire"]));
    upstream.refuse("InvalidTokenError");
    let refused = json!([format!("imgwire: {}", KEY.1)]);
    eventually("the refusal", async || refusals(&gate).await == refused).await;
    open().await;
    let both = json!([refused[0], "imgwire"]);
    assert_eq!(refusals(&gate).await, both, "an outage does not end it");
    upstream.accept();
    eventually("the end", async || refusals(&gate).await == json!([])).await;
}

#[actix_web::test]
async fn a_reload_keeps_the_state() {
    let upstream = Upstream::start();
    let gate = gate_before(&upstream).start().await;
    upstream.refuse("OperationNotAllowedError");
    gate.ask_as(&Token::of("user_1")).await;
    let refused = json!([format!("imgwire: {}", RIGHT.1)]);
    assert_eq!(refusals(&gate).await, refused);
    gate.reload(&gate_before(&upstream).route("/other", ["signed-in"]))
        .unwrap();
    assert_eq!(refusals(&gate).await, refused);
}

#[actix_web::test]
async fn a_refusal_ends_without_traffic_once_imgwire_accepts_requests_again() {
    let upstream = Upstream::start();
    let gate = gate_before(&upstream)
        .imgwire("breaker", json!({ "failures": 3, "probe": "5ms" }))
        .start()
        .await;
    upstream.refuse("PaymentRequiredError");
    let user = Token::of("user_1");
    gate.ask_as(&user).await.assert_error(500, "imgwire_failed");
    let refusing = r#"imgwire_gate_imgwire_refusing{reason="payment_required"}"#;
    assert_eq!(gate.metric(refusing).await, 1.0);
    eventually("another request", async || upstream.peer.requests() > 2).await;
    assert_eq!(gate.metric(refusing).await, 1.0);
    upstream.accept();
    eventually("the end", async || gate.metric(refusing).await == 0.0).await;
    let asked = upstream.peer.requests();
    gate.ask_as(&user).await.assert_token();
    assert_eq!(upstream.peer.requests(), asked + 1);
}

#[actix_web::test]
async fn one_background_request_at_a_time_asks_however_often_imgwire_changes_its_mind() {
    let upstream = Upstream::start();
    let gate = gate_before(&upstream)
        .imgwire("breaker", json!({ "failures": 3, "probe": "20ms" }))
        .start()
        .await;
    let user = Token::of("user_1");
    for _ in 0..20 {
        upstream.refuse("PaymentRequiredError");
        gate.ask_as(&user).await.assert_error(500, "imgwire_failed");
        upstream.accept();
        gate.ask_as(&user).await.assert_token();
    }
    upstream.refuse("PaymentRequiredError");
    gate.ask_as(&user).await.assert_error(500, "imgwire_failed");
    let (asked, started) = (upstream.peer.requests(), Instant::now());
    eventually("three more requests", async || {
        upstream.peer.requests() >= asked + 3
    })
    .await;
    // Between two requests of one client are 60 times 20 ms.
    assert!(started.elapsed() >= Duration::from_millis(2400));
}
