//! Imgwire's bad days: the breaker, the retry budget, and tokens made ahead.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use actix_web::http::StatusCode;
use futures_util::future::join_all;
use imgwire_gate::sandbox::emulator::Misbehaviour;

use crate::helpers::{Recipe, TestApp, Token, eventually};

/// A gate without limits, before an Imgwire that has bad days.
async fn gate(imgwire: &str) -> TestApp {
    let recipe = Recipe {
        imgwire: imgwire.to_owned(),
        ..Recipe::accepting("[\"app\"]", "")
    };
    recipe.start().await
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

/// Once Imgwire is known to be down nobody waits for it, and within a second of its return tokens flow.
async fn opens_and_closes(gate: &TestApp, how: Misbehaviour) {
    assert_eq!(ask(gate).await.0, 200);
    gate.imgwire.misbehave(Some(how));
    asks(gate, 5).await;
    // All of them at once; other tests may take the machine's time, so one of a few tries must do.
    let mut longest = Vec::new();
    for _ in 0..5 {
        let answers = asks(gate, 20).await;
        assert!(answers.iter().all(|(status, _)| *status == 500));
        longest.extend(answers.into_iter().map(|(_, took)| took).max());
    }
    let best = longest.iter().min().unwrap();
    assert!(*best < Duration::from_millis(50), "{longest:?}");
    // It is degraded, and not unready: nobody else could do better.
    let readiness = gate.manage("/readyz").await;
    assert_eq!(readiness.status, 200);
    assert_eq!(readiness.json["degraded"][0], "imgwire");
    assert!(gate.metric(STATE).await >= 1.0);
    // What tries it is not a client's request.
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
    assert!(gate.manage("/readyz").await.json.get("degraded").is_none());
    for (status, _) in asks(gate, 20).await {
        assert_eq!(status, 200);
    }
}

#[actix_web::test]
async fn while_imgwire_is_down_everybody_is_told_at_once_and_soon_after_its_return_tokens_flow() {
    let settings =
        "retries = 0\ntimeout = \"400ms\"\nbreaker = { failures = 5, probe = \"500ms\" }";
    for how in [
        Misbehaviour::Hang,
        Misbehaviour::Reset,
        Misbehaviour::Status(503, None),
        Misbehaviour::Body("<html>down for maintenance</html>".to_owned()),
    ] {
        opens_and_closes(&gate(settings).await, how).await;
    }
}

#[actix_web::test]
async fn an_imgwire_that_refuses_is_not_down() {
    let gate = gate("retries = 0\nbreaker = { failures = 3, probe = \"500ms\" }").await;
    for status in [401, 403, 422, 429] {
        gate.imgwire
            .misbehave(Some(Misbehaviour::Status(status, None)));
        asks(&gate, 10).await;
        assert_eq!(gate.metric(STATE).await, 0.0, "{status}");
    }
    // Nor is one that fails now and then.
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
async fn an_imgwire_that_refuses_after_an_outage_is_back() {
    let gate = gate("retries = 0\nbreaker = { failures = 3, probe = \"100ms\" }").await;
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
async fn an_imgwire_that_asks_for_endless_patience_is_asked_no_more() {
    let gate = gate("retries = 2\ndeadline = \"5s\"").await;
    let wait = |seconds: u64| Misbehaviour::Status(503, Some(seconds.to_string()));
    gate.imgwire.misbehave_next([wait(1), wait(u64::MAX)]);
    assert_eq!(ask(&gate).await.0, 500);
    assert_eq!(gate.imgwire.asked(), 2);
    assert_eq!(ask(&gate).await.0, 200);
}

#[actix_web::test]
async fn retries_double_the_load_at_most() {
    let gate = gate("retries = 3\ndeadline = \"5s\"\nbreaker = { failures = 1000000 }").await;
    gate.imgwire
        .misbehave(Some(Misbehaviour::Status(500, None)));
    let began = Instant::now();
    // One alone has all the retries that it may have.
    ask(&gate).await;
    assert_eq!(gate.imgwire.asked(), 4);
    asks(&gate, 200).await;
    // One for each request, the reserve of ten, and what came back of it meanwhile.
    let allowed = 201 * 2 + 10 + began.elapsed().as_secs() as usize;
    let asked = gate.imgwire.asked();
    assert!(asked <= allowed && asked > 201, "{asked} of {allowed}");
    assert!(gate.metric("imgwire_gate_retries_refused_total").await > 100.0);
}

const POOL: &str =
    "retries = 0\npool = { size = 64, max_age = \"2m\" }\nbreaker = { failures = 1000000 }";

async fn pooled(gate: &TestApp) -> f64 {
    gate.metric("imgwire_gate_pool_tokens").await
}

/// Waits until no token is being made ahead.
async fn none_is_being_made(gate: &TestApp) {
    eventually("the end of the making", async || {
        let text = gate.manage("/metrics").await.text;
        text.contains("imgwire_gate_pool_making 0")
    })
    .await;
}

/// Asks until ten tokens wait.
async fn ten_are_made(gate: &TestApp) {
    // One after the other: what is made ahead is half of what was asked for.
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
async fn of_ten_thousand_requests_each_has_a_token_of_its_own() {
    let gate = gate(POOL).await;
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
    // It made no more than was used, and what it holds.
    assert!(gate.imgwire.created() <= 10_000 + 64);
}

#[actix_web::test]
async fn a_token_made_ahead_spares_the_wait_for_imgwire_and_outlasts_it() {
    let gate = gate(POOL).await;
    ten_are_made(&gate).await;
    gate.imgwire
        .misbehave(Some(Misbehaviour::Slow(Duration::from_millis(700))));
    let (status, took) = ask(&gate).await;
    assert_eq!(status, 200);
    assert!(took < Duration::from_millis(300), "{took:?}");
    // While Imgwire is down those that are there are still handed out; then there are none, which is no error of theirs.
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
async fn after_an_outage_it_fills_again_without_a_burst() {
    let gate = gate(POOL).await;
    for _ in 0..64 {
        asks(&gate, 2).await;
    }
    gate.imgwire
        .misbehave(Some(Misbehaviour::Status(503, None)));
    eventually("an empty pool", async || ask(&gate).await.0 == 500).await;
    // What the outage's requests had made may reach Imgwire after their answers.
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
async fn nobody_gets_a_token_that_is_too_old_or_about_to_end() {
    // By its age.
    let gate = gate(POOL).await;
    ten_are_made(&gate).await;
    let created = gate.imgwire.created();
    gate.clock.advance(Duration::from_secs(121));
    let old = gate.imgwire.created();
    assert_eq!(old, created, "nothing is made while nobody asks");
    assert_eq!(ask(&gate).await.0, 200);
    let discarded = "imgwire_gate_pool_events_total{event=\"discarded\"}";
    assert_eq!(gate.metric(discarded).await, 10.0);

    // By its own end, which is fifteen minutes after it was made.
    let gate = self::gate("retries = 0\npool = { size = 64, max_age = \"1h\" }").await;
    ten_are_made(&gate).await;
    gate.clock.advance(Duration::from_secs(14 * 60 + 55));
    assert_eq!(ask(&gate).await.0, 200);
    assert_eq!(gate.metric(discarded).await, 10.0);
}

#[actix_web::test]
async fn a_gate_that_ends_makes_no_more_tokens() {
    let recipe = Recipe {
        imgwire: POOL.to_owned(),
        server: "shutdown_delay = \"1s\"".to_owned(),
        ..Recipe::accepting("[\"app\"]", "")
    };
    let mut gate = recipe.start().await;
    ten_are_made(&gate).await;
    let created = gate.imgwire.created();
    gate.imgwire
        .misbehave(Some(Misbehaviour::Slow(Duration::from_millis(200))));
    gate.begin_stop();
    eventually("draining", async || {
        gate.manage("/readyz").await.status == 503
    })
    .await;
    // What is still asked is answered with what is there, and nothing takes its place.
    for _ in 0..10 {
        assert_eq!(ask(&gate).await.0, 200);
    }
    assert_eq!(pooled(&gate).await, 0.0);
    assert_eq!(gate.imgwire.created(), created);
    gate.stopped().await;
}
