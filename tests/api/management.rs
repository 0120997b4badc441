//! The management listener, and how a gate ends.

use std::time::Duration;

use imgwire_gate::imgwire::emulator::Misbehaviour;

use crate::helpers::{ROUTE, Recipe, TestApp, Token, eventually};

#[actix_web::test]
async fn a_gate_lives_and_is_ready() {
    let app = TestApp::start().await;
    assert_eq!(app.manage("/livez").await.status, 200);
    assert_eq!(app.manage("/readyz").await.status, 200);
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
        "imgwire_gate_upstream_seconds_count 1",
        "imgwire_gate_upstream_attempts_total 1",
        "imgwire_gate_chain_seconds_count 2",
        "imgwire_gate_in_flight 0",
        "imgwire_gate_build_info{version=",
    ] {
        assert!(text.contains(metric), "{metric} in {text}");
    }
}

#[actix_web::test]
async fn no_label_takes_a_value_from_a_client() {
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
async fn a_gate_that_stops_finishes_what_runs_and_says_that_it_is_not_ready() {
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
    assert_eq!(app.manage("/readyz").await.json["failing"][0], "draining");
    let answer = running.await.unwrap();
    answer.assert_token();
    app.stopped().await;
}

#[actix_web::test]
async fn a_gate_that_stops_waits_no_longer_than_its_grace() {
    let recipe = Recipe {
        server: "shutdown_grace = \"300ms\"".into(),
        ..Recipe::default()
    };
    let mut app = recipe.start().await;
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
