//! The filter of the log, and limits on what malformed requests write.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    helpers::{Emulator, Gate, ROUTE, Token, eventually},
    process::{GateProcess, write_config},
};

#[actix_web::test]
async fn the_log_filter_can_be_changed_while_the_gate_runs() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&Gate::accepting(["app"]), imgwire.url());
    let gate = GateProcess::start_with(&config, &[], "info", &[]).await;
    let token = Token::of("user_1").sign();
    let client = awc::Client::default();
    let set = async |filter: &str| {
        let url = format!("{}/log", gate.management());
        let request = client.put(url).send_json(&json!({ "filter": filter }));
        request.await.unwrap().status().as_u16()
    };
    let levels = || {
        let levels = gate.lines().into_iter();
        let levels = levels.filter_map(|line| line["level"].as_str().map(str::to_owned));
        levels.collect::<BTreeSet<_>>()
    };
    let decisions = || {
        let lines = gate.lines();
        lines
            .iter()
            .filter(|line| line["target"] == "decision")
            .count()
    };
    gate.ask(&token).await;
    eventually("a decision", async || decisions() == 1).await;
    assert!(!levels().contains("DEBUG"));

    // Filters work by level and target; decisions are always written.
    assert_eq!(
        set("info,imgwire_gate=debug,awc=debug,actix_http=debug,decision=off").await,
        204
    );
    let mut shown = client
        .get(format!("{}/log", gate.management()))
        .send()
        .await
        .unwrap();
    let shown: Value = serde_json::from_slice(&shown.body().await.unwrap()).unwrap();
    assert!(
        shown["filter"].as_str().unwrap().contains("decision=off"),
        "{shown}"
    );
    gate.ask(&token).await;
    eventually("the second decision", async || decisions() == 2).await;
    let mut expected = 2;
    for filter in [
        "trace",
        "off",
        "error",
        "decision=error",
        "decision[{outcome}]=off",
        "off,decision[{outcome}]=off,decision[{status}]=off",
        "[request]=off,decision=warn",
        "",
    ] {
        assert_eq!(set(filter).await, 204, "{filter}");
        gate.ask(&token).await;
        expected += 1;
        eventually(filter, async || decisions() == expected).await;
    }
    assert!(levels().contains("TRACE"));

    // An invalid filter changes nothing, and only JSON is accepted.
    assert_eq!(set("imgwire_gate=loud").await, 400);
    let form = client
        .put(format!("{}/log", gate.management()))
        .send_body("filter=off");
    assert_eq!(form.await.unwrap().status(), 415);
    gate.ask(&token).await;
    eventually("the last decision", async || decisions() == expected + 1).await;
}

#[actix_web::test]
async fn malformed_requests_are_counted_and_cannot_flood_the_log() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&Gate::accepting(["app"]), imgwire.url());
    let gate = GateProcess::start_with(&config, &[], "info", &[]).await;
    let lines = |target: &str| {
        let lines = gate.lines().into_iter();
        lines
            .filter(|line| {
                line["target"]
                    .as_str()
                    .is_some_and(|found| found.starts_with(target))
            })
            .collect::<Vec<_>>()
    };
    let client = awc::Client::default();
    let mut answer = client
        .post(format!("{}/nowhere?secret=1", gate.url()))
        .insert_header(("x-request-id", "request-1"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 404);
    answer.body().await.unwrap();
    eventually("the line", async || lines("refused").len() == 1).await;
    let line = &lines("refused")[0];
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["request_id"], "request-1");
    assert_eq!(line["client"], "127.0.0.1");
    assert_eq!(
        (&line["method"], &line["path"]),
        (&json!("POST"), &json!("/nowhere"))
    );
    assert_eq!(
        (&line["status"], &line["code"]),
        (&json!(404), &json!("not_found"))
    );

    // As many requests that reach a handler as requests that the HTTP parser refuses.
    const EACH: u64 = 150;
    let port: u16 = gate.url().rsplit(':').next().unwrap().parse().unwrap();
    for number in 0..EACH {
        let url = format!("{}{ROUTE}/{number}", gate.url());
        client.get(url).send().await.unwrap().body().await.unwrap();
        let mut parser = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        std::io::Write::write_all(&mut parser, b"\0\0\0 HTTP\r\n\r\n").unwrap();
        let mut refusal = Vec::new();
        std::io::Read::read_to_end(&mut parser, &mut refusal).unwrap();
        assert!(refusal.starts_with(b"HTTP/1.1 400"), "{refusal:?}");
    }
    let left_out = || {
        let lines = gate.lines().into_iter();
        let left_out = lines.filter_map(|line| line["left_out"].as_u64());
        left_out.collect::<Vec<_>>()
    };
    let by_the_parser = || {
        let lines = lines("refused").into_iter();
        lines.filter(|line| line["message"] == "refused by the HTTP parser")
    };
    let written = || lines("refused").len() as u64;
    eventually("the count", async || {
        written() + left_out().iter().sum::<u64>() == 2 * EACH + 1
    })
    .await;
    assert!(by_the_parser().count() > 0);
    let seconds = left_out().len() as u64 + 2;
    assert!(written() <= 20 * seconds + 1, "{} in {seconds}", written());
    assert!(left_out().iter().sum::<u64>() > EACH, "{:?}", left_out());
    // Decisions are not affected.
    gate.ask(&Token::of("user_1").sign()).await;
    eventually("the decision", async || lines("decision").len() == 1).await;
}
