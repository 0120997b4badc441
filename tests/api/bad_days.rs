//! Outages of Imgwire: the circuit breaker, the retry budget, and the token pool.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use actix_web::http::StatusCode;
use futures_util::future::join_all;
use serde_json::json;

use crate::helpers::{Gate, Misbehaviour, TestApp, Token, eventually};

/// A gate without limits.
fn unlimited() -> Gate {
    Gate::accepting(["app"]).imgwire("retries", 0)
}

/// A gate whose breaker opens after so many failures, and asks Imgwire again in this interval.
fn with_breaker(failures: u32, probe: &str) -> Gate {
    unlimited().imgwire("breaker", json!({ "failures": failures, "probe": probe }))
}

/// A gate whose breaker never opens.
fn without_breaker() -> Gate {
    with_breaker(1_000_000, "5s")
}

async fn ask(gate: &TestApp) -> (StatusCode, Duration) {
    let began = Instant::now();
    let answer = gate.ask_as(&Token::of("user_1")).await;
    if answer.status == 500 {
        answer.assert_error(500, "imgwire_failed");
    }
    (answer.status, began.elapsed())
}

async fn asks(gate: &TestApp, times: usize) -> Vec<(StatusCode, Duration)> {
    join_all((0..times).map(|_| ask(gate))).await
}

const STATE: &str = "imgwire_gate_breaker_state";

/// While Imgwire is down, requests fail without a wait; within one second of its return, the gate issues tokens again.
async fn opens_and_closes(gate: &TestApp, how: Misbehaviour) {
    assert_eq!(ask(gate).await.0, 200);
    gate.imgwire.misbehave(Some(how));
    asks(gate, 5).await;
    // Concurrent requests. Other tests use the machine too, so the best of a few tries counts.
    let mut longest = Vec::new();
    for _ in 0..5 {
        let answers = asks(gate, 20).await;
        assert!(answers.iter().all(|(status, _)| *status == 500));
        longest.extend(answers.into_iter().map(|(_, took)| took).max());
    }
    let best = longest.iter().min().unwrap();
    assert!(*best < Duration::from_millis(50), "{longest:?}");
    // The gate is degraded but ready, because another gate could not do better.
    let readiness = gate.manage("/readyz").await;
    assert_eq!(readiness.status, 200);
    assert_eq!(readiness.json["degraded"][0], "imgwire");
    assert!(gate.metric(STATE).await >= 1.0);
    // A probe asks Imgwire, not a client's request.
    let asked = gate.imgwire.asked();
    eventually("a trial", async || gate.imgwire.asked() > asked).await;
    assert_eq!(ask(gate).await.0, 500);
    gate.imgwire.misbehave(None);
    let back = Instant::now();
    eventually("a token", async || ask(gate).await.0 == 200).await;
    assert!(
        back.elapsed() < Duration::from_secs(1),
        "{:?}",
        back.elapsed()
    );
    assert_eq!(gate.metric(STATE).await, 0.0);
    let readiness = gate.manage("/readyz").await;
    assert_eq!(readiness.json, json!({ "status": "ready", "degraded": [] }));
    for (status, _) in asks(gate, 20).await {
        assert_eq!(status, 200);
    }
}

#[actix_web::test]
async fn an_open_breaker_fails_requests_within_50_ms_and_closes_within_one_second_of_recovery() {
    for how in [
        Misbehaviour::Hang,
        Misbehaviour::Reset,
        Misbehaviour::Status(503, None),
        Misbehaviour::Body("down for maintenance".to_owned()),
    ] {
        let gate = with_breaker(5, "500ms").imgwire("timeout", "400ms");
        opens_and_closes(&gate.start().await, how).await;
    }
}

#[actix_web::test]
async fn refusals_by_imgwire_do_not_open_the_breaker() {
    let gate = with_breaker(3, "500ms").start().await;
    for status in [401, 403, 422, 429] {
        gate.imgwire
            .misbehave(Some(Misbehaviour::Status(status, None)));
        asks(&gate, 10).await;
        assert_eq!(gate.metric(STATE).await, 0.0, "{status}");
    }
    // Nor do single failures between successes.
    for _ in 0..5 {
        gate.imgwire
            .misbehave_next([Misbehaviour::Status(500, None), Misbehaviour::Reset]);
        gate.imgwire.misbehave(None);
        for _ in 0..3 {
            ask(&gate).await;
        }
    }
    assert_eq!(gate.metric("imgwire_gate_breaker_opened_total").await, 0.0);
}

#[actix_web::test]
async fn a_refusal_after_an_outage_closes_the_breaker() {
    let gate = with_breaker(3, "100ms").start().await;
    for status in [401, 402, 429] {
        gate.imgwire
            .misbehave(Some(Misbehaviour::Status(503, None)));
        asks(&gate, 4).await;
        assert_ne!(gate.metric(STATE).await, 0.0, "{status}");
        gate.imgwire
            .misbehave(Some(Misbehaviour::Status(status, None)));
        eventually("Imgwire is back", async || gate.metric(STATE).await == 0.0).await;
        gate.imgwire.misbehave(None);
        assert_eq!(ask(&gate).await.0, 200, "{status}");
    }
}

#[actix_web::test]
async fn a_retry_after_beyond_the_deadline_ends_the_retries() {
    let gate = unlimited().imgwire("retries", 2).imgwire("deadline", "5s");
    let gate = gate.start().await;
    let wait = |seconds: u64| Misbehaviour::Status(503, Some(seconds.to_string()));
    gate.imgwire.misbehave_next([wait(1), wait(u64::MAX)]);
    assert_eq!(ask(&gate).await.0, 500);
    assert_eq!(gate.imgwire.asked(), 2);
    assert_eq!(ask(&gate).await.0, 200);
}

#[actix_web::test]
async fn retries_at_most_double_the_load() {
    let gate = without_breaker()
        .imgwire("retries", 3)
        .imgwire("deadline", "5s");
    let gate = gate.start().await;
    gate.imgwire
        .misbehave(Some(Misbehaviour::Status(500, None)));
    let began = Instant::now();
    // A single request may use all of its retries.
    ask(&gate).await;
    assert_eq!(gate.imgwire.asked(), 4);
    asks(&gate, 200).await;
    // One retry per request, the reserve of ten, and what the reserve regained meanwhile.
    let allowed = 201 * 2 + 10 + began.elapsed().as_secs() as usize;
    let asked = gate.imgwire.asked();
    assert!(asked <= allowed && asked > 201, "{asked} of {allowed}");
    assert!(gate.metric("imgwire_gate_retries_refused_total").await > 100.0);
}

fn with_pool(max_age: &str) -> Gate {
    without_breaker().imgwire("pool", json!({ "size": 64, "max_age": max_age }))
}

async fn pooled(gate: &TestApp) -> f64 {
    gate.metric("imgwire_gate_pool_tokens").await
}

/// Waits until the pool makes no token.
async fn none_is_being_made(gate: &TestApp) {
    eventually("the end of the making", async || {
        let text = gate.manage("/metrics").await.text;
        text.contains("imgwire_gate_pool_making 0")
    })
    .await;
}

/// Asks until the pool holds ten tokens.
async fn ten_are_made(gate: &TestApp) {
    // One request after the other: the pool makes half as many tokens as were asked for.
    for _ in 0..20 {
        assert_eq!(ask(gate).await.0, 200);
        none_is_being_made(gate).await;
    }
    assert_eq!(pooled(gate).await, 10.0);
}

async fn token(gate: &TestApp) -> Option<String> {
    let answer = gate.ask_as(&Token::of("user_1")).await;
    answer.json["uploadToken"].as_str().map(str::to_owned)
}

#[actix_web::test]
async fn ten_thousand_requests_get_ten_thousand_different_tokens() {
    let gate = with_pool("2m").start().await;
    let callers = (0..50).map(async |_| {
        let mut tokens = Vec::new();
        for _ in 0..200 {
            tokens.push(token(&gate).await.unwrap());
        }
        tokens
    });
    let tokens = join_all(callers).await.concat();
    assert_eq!(tokens.len(), 10_000);
    let different: HashSet<_> = tokens.iter().collect();
    assert_eq!(different.len(), 10_000);
    let handed_out = gate
        .metric("imgwire_gate_pool_events_total{event=\"handed_out\"}")
        .await;
    assert!(handed_out > 1000.0, "{handed_out}");
    // The pool made no more tokens than were used and than it holds.
    assert!(gate.imgwire.created() <= 10_000 + 64);
}

#[actix_web::test]
async fn pooled_tokens_save_the_wait_for_imgwire_and_outlast_its_outage() {
    let gate = with_pool("2m").start().await;
    ten_are_made(&gate).await;
    gate.imgwire
        .misbehave(Some(Misbehaviour::Slow(Duration::from_millis(700))));
    let (status, took) = ask(&gate).await;
    assert_eq!(status, 200);
    assert!(took < Duration::from_millis(300), "{took:?}");
    // While Imgwire is down, the gate hands out the remaining pooled tokens.
    none_is_being_made(&gate).await;
    assert!(pooled(&gate).await >= 10.0);
    gate.imgwire
        .misbehave(Some(Misbehaviour::Status(503, None)));
    for _ in 0..pooled(&gate).await as usize {
        assert_eq!(ask(&gate).await.0, 200);
    }
    assert_eq!(ask(&gate).await.0, 500);
    let line = "imgwire_gate_creations_total{result=\"pooled\"}";
    assert!(gate.metric(line).await >= 11.0);
}

#[actix_web::test]
async fn after_an_outage_the_pool_fills_without_a_burst() {
    let gate = with_pool("2m").start().await;
    for _ in 0..64 {
        asks(&gate, 2).await;
    }
    gate.imgwire
        .misbehave(Some(Misbehaviour::Status(503, None)));
    eventually("an empty pool", async || ask(&gate).await.0 == 500).await;
    // Calls of the outage's requests may reach Imgwire after their answers.
    none_is_being_made(&gate).await;
    gate.imgwire.misbehave(None);
    let asked = gate.imgwire.asked();
    for done in 1..=30 {
        assert_eq!(ask(&gate).await.0, 200);
        assert!(gate.imgwire.asked() - asked <= 2 * done);
    }
    eventually("a full pool", async || {
        asks(&gate, 4).await;
        pooled(&gate).await > 50.0
    })
    .await;
}

#[actix_web::test]
async fn pooled_tokens_that_are_too_old_or_about_to_expire_are_discarded() {
    // By age.
    let gate = with_pool("2m").start().await;
    ten_are_made(&gate).await;
    let created = gate.imgwire.created();
    gate.clock.advance(Duration::from_secs(121));
    let old = gate.imgwire.created();
    assert_eq!(old, created, "an idle gate makes no tokens");
    assert_eq!(ask(&gate).await.0, 200);
    let discarded = "imgwire_gate_pool_events_total{event=\"discarded\"}";
    assert_eq!(gate.metric(discarded).await, 10.0);

    // By expiry: fifteen minutes after the token was made.
    let gate = with_pool("1h").start().await;
    ten_are_made(&gate).await;
    gate.clock.advance(Duration::from_secs(14 * 60 + 55));
    assert_eq!(ask(&gate).await.0, 200);
    assert_eq!(gate.metric(discarded).await, 10.0);
}

#[actix_web::test]
async fn a_draining_gate_does_not_refill_the_pool() {
    let gate = with_pool("2m").server("shutdown_delay", "1s");
    let mut gate = gate.start().await;
    ten_are_made(&gate).await;
    let created = gate.imgwire.created();
    gate.imgwire
        .misbehave(Some(Misbehaviour::Slow(Duration::from_millis(200))));
    gate.begin_stop();
    eventually("draining", async || {
        gate.manage("/readyz").await.status == 503
    })
    .await;
    // The last requests get pooled tokens, and the pool does not make new ones.
    for _ in 0..10 {
        assert_eq!(ask(&gate).await.0, 200);
    }
    assert_eq!(pooled(&gate).await, 0.0);
    assert_eq!(gate.imgwire.created(), created);
    gate.stopped().await;
}
