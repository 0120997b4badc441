//! Deliveries of events: whatever the app, the gate and the network do, the app gets each event at least once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::{
    StreamExt as _,
    future::{join, join_all},
    stream,
};
use serde_json::json;

use crate::{
    backends::Backend as _,
    events::{Event, HOOK, app_with_events, delivered, deliveries, sending, uploaded_and_deleted},
    helpers::{Emulator, Endpoint, Gate, Misbehaviour, Token, eventually, upload_route, within},
    postgres::Postgres,
    process::{GateProcess, text, write_config},
    service::{Reply, Service},
    upload_records::{image_ids, opened, png, png_of, put, upload},
};

/// Longer than an event waits after its first failure.
const BACKOFF: Duration = Duration::from_secs(6);

const MINUTE: Duration = Duration::from_secs(60);

/// Events by their ids. Deliveries of one event have the same body.
fn by_id(deliveries: Vec<Event>) -> BTreeMap<String, Event> {
    let mut events = BTreeMap::<String, Event>::new();
    for event in deliveries {
        let earlier = events.entry(event.id.clone()).or_insert(event.clone());
        assert_eq!(earlier.body, event.body);
    }
    events
}

fn images(events: &BTreeMap<String, Event>) -> BTreeSet<String> {
    events
        .values()
        .map(|event| event.image().to_owned())
        .collect()
}

#[actix_web::test]
async fn an_event_that_the_app_does_not_accept_is_sent_again_as_it_was() {
    let service = app_with_events();
    let app = sending(&service).start().await;
    let elsewhere = format!("{}/elsewhere", service.url);
    let redirect = |status| Reply::status(status).header("location", &elsewhere);
    for refusal in [
        redirect(301),
        redirect(307),
        Reply::status(304),
        Reply::status(400),
        Reply::status(410),
        Reply::status(429).header("retry-after", "3600"),
        Reply::status(500),
    ] {
        let before = service.count(HOOK);
        service.answer(HOOK, refusal);
        uploaded_and_deleted(&app, "user_1").await;
        delivered(&service, before + 1).await;
        service.answer(HOOK, Reply::status(204));
        app.clock.advance(BACKOFF);
        let deliveries = delivered(&service, before + 2).await;
        let [first, second] = &deliveries[before..] else {
            panic!("{deliveries:?}");
        };
        assert_eq!((&first.id, &first.body), (&second.id, &second.body));
        assert!(
            second.sent_at >= first.sent_at + 5,
            "the time of the delivery"
        );
    }
    assert!(service.seen("/elsewhere").is_empty());
    let metric = async |outcome: &str| {
        let name = format!("imgwire_gate_event_deliveries_total{{outcome=\"{outcome}\"}}");
        app.metric(&name).await
    };
    eventually("the metrics", async || metric("delivered").await == 7.0).await;
    assert_eq!(metric("failed").await, 7.0);
}

#[actix_web::test]
async fn the_metrics_show_what_waits_until_the_app_accepts_it() {
    let service = app_with_events();
    service.answer(HOOK, Reply::status(503));
    let app = sending(&service).start().await;
    for _ in 0..3 {
        uploaded_and_deleted(&app, "user_1").await;
    }
    let pending = async || app.metric("imgwire_gate_events_pending").await;
    let oldest = async || app.metric("imgwire_gate_events_oldest_seconds").await;
    within(MINUTE, "the backlog", async || pending().await == 3.0).await;
    app.clock.advance(MINUTE);
    within(MINUTE, "the age", async || oldest().await >= 60.0).await;
    service.answer(HOOK, Reply::status(204));
    within(MINUTE, "the end", async || pending().await == 0.0).await;
    assert_eq!(oldest().await, 0.0);
}

#[actix_web::test]
async fn at_most_sixteen_deliveries_run_at_once() {
    let service = Service::start();
    let slow = Reply::status(204).after(Duration::from_secs(8));
    service.answer(HOOK, slow);
    let app = sending(&service).start().await;
    uploaded_and_deleted(&app, "user_1").await;
    eventually("the first delivery", async || service.count(HOOK) == 1).await;
    let uploads = (0..40).map(|_| uploaded_and_deleted(&app, "user_1"));
    let uploads = stream::iter(uploads).buffer_unordered(16);
    uploads.collect::<Vec<_>>().await;
    within(MINUTE, "a full batch", async || service.count(HOOK) >= 17).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(service.count(HOOK), 17);
    service.answer(HOOK, Reply::status(204));
    within(MINUTE, "the rest", async || service.count(HOOK) == 41).await;
    assert_eq!(by_id(deliveries(&service)).len(), 41);
}

/// Uploads images to a gate in its own process, and deletes them; returns their ids.
async fn uploaded_and_deleted_at(gate: &GateProcess, count: usize) -> BTreeSet<String> {
    let mut images = BTreeSet::new();
    for _ in 0..count {
        let answer = upload(&gate.url(), "/mine", "user_1", &png()).await;
        let image = answer.json["image"]["id"].as_str().unwrap().to_owned();
        let url = format!("{}/mine/api/v1/images/{image}", gate.url());
        let client = awc::Client::default();
        let request = client.delete(url).bearer_auth(Token::of("user_1").sign());
        assert_eq!(request.send().await.unwrap().status(), 204);
        images.insert(image);
    }
    images
}

#[actix_web::test]
async fn events_survive_kills_of_the_gate() {
    let imgwire = Emulator::start().unwrap();
    let service = app_with_events();
    let (_folder, config) = write_config(&sending(&service), imgwire.url());
    let mut expected = BTreeSet::new();
    for status in [503, 204, 503] {
        // Some deliveries end before the kill, and some do not.
        service.answer(
            HOOK,
            Reply::status(status).after(Duration::from_millis(700)),
        );
        let mut gate = GateProcess::start(&config, &[], "info").await;
        expected.extend(uploaded_and_deleted_at(&gate, 10).await);
        let before = service.count(HOOK);
        within(MINUTE, "a delivery", async || service.count(HOOK) > before).await;
        gate.signal("-KILL");
        gate.end().await;
    }
    service.answer(HOOK, Reply::status(204));
    let _gate = GateProcess::start(&config, &[], "info").await;
    let got = async || images(&by_id(deliveries(&service))) == expected;
    within(2 * MINUTE, "all events", got).await;
    let events = by_id(deliveries(&service));
    assert_eq!(events.len(), expected.len(), "each event keeps its id");
}

#[actix_web::test]
async fn a_kill_after_a_deletion_at_imgwire_loses_no_event() {
    let imgwire = Emulator::start().unwrap();
    imgwire.change(|scenario| scenario.processing_milliseconds = 0);
    let service = app_with_events();
    let route = upload_route("/mine", ["signed-in"])
        .set("abandon_after", "5s")
        .set("on_mismatch", "delete");
    let gate = sending(&service).route_with(route);
    let (_folder, config) = write_config(&gate, imgwire.url());
    let mut gate = GateProcess::start(&config, &[], "info").await;
    // Imgwire deletes the image, and its answer takes long.
    let trickle = Misbehaviour::Trickle(Duration::from_millis(500));
    imgwire.misbehave_at(Endpoint::Delete, Some(trickle));
    let (rejected, url) = opened(&gate.url(), "/mine", "user_1", &png()).await;
    assert_eq!(put(&url, "image/png", png_of(68)).await, 200);
    let (abandoned, _) = opened(&gate.url(), "/mine", "user_1", &png()).await;
    within(MINUTE, "both deletions", async || {
        image_ids(&imgwire).is_empty()
    })
    .await;
    gate.signal("-KILL");
    gate.end().await;
    assert_eq!(service.count(HOOK), 0);
    imgwire.misbehave_at(Endpoint::Delete, None);
    let _gate = GateProcess::start(&config, &[], "info").await;
    within(MINUTE, "the events", async || service.count(HOOK) >= 3).await;
    let events = by_id(deliveries(&service));
    let kinds: BTreeSet<_> = events
        .values()
        .map(|event| (event.image(), event.kind()))
        .collect();
    let expected = [
        (&*rejected, "upload.mismatched"),
        (&rejected, "image.deleted"),
        (&abandoned, "upload.abandoned"),
    ];
    assert_eq!(kinds, BTreeSet::from(expected));
}

#[actix_web::test]
async fn an_app_that_answers_slowly_gets_each_event_once() {
    let service = app_with_events();
    let app = sending(&service).start().await;
    // The next delivery uses the connection of the first one.
    uploaded_and_deleted(&app, "user_1").await;
    delivered(&service, 1).await;
    // Longer than half of the timeout.
    let slow = Reply::status(204).after(Duration::from_secs(7));
    service.answer(HOOK, slow);
    uploaded_and_deleted(&app, "user_1").await;
    let accepted = "imgwire_gate_event_deliveries_total{outcome=\"delivered\"}";
    within(MINUTE, "both deliveries", async || {
        app.metric(accepted).await == 2.0
    })
    .await;
    assert_eq!(service.count(HOOK), 2);
}

#[actix_web::test]
async fn events_that_are_not_delivered_in_time_are_dropped_counted_and_logged() {
    let imgwire = Emulator::start().unwrap();
    let service = app_with_events();
    service.answer(HOOK, Reply::status(503));
    let gate = sending(&service).set("events.keep", "3s");
    let (_folder, config) = write_config(&gate, imgwire.url());
    let gate = GateProcess::start(&config, &[], "info").await;
    uploaded_and_deleted_at(&gate, 3).await;
    let lines = |message: &str| {
        let lines = gate.lines().into_iter();
        let lines = lines.filter(|line| line["message"] == message);
        lines.collect::<Vec<_>>()
    };
    let dropped = || lines("events dropped that were not delivered in time");
    let count = || {
        let counts = dropped().into_iter();
        counts
            .map(|line| line["dropped"].as_u64().unwrap())
            .sum::<u64>()
    };
    within(MINUTE, "the drop", async || count() == 3).await;
    for line in dropped() {
        assert_eq!(line["level"], "ERROR");
        let oldest: jiff::Timestamp = line["oldest"].as_str().unwrap().parse().unwrap();
        assert!(oldest < jiff::Timestamp::now());
    }
    let failed = lines("events not delivered");
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0]["level"], "WARN");
    assert_eq!(failed[0]["error"], "unexpected status 503");
    let client = awc::Client::default();
    let metrics = client.get(format!("{}/metrics", gate.management()));
    let metrics = metrics.send().await.unwrap().body().await.unwrap();
    let metrics = text(&metrics);
    assert!(
        metrics.contains("imgwire_gate_events_dropped_total 3\n"),
        "{metrics}"
    );

    // They do not come back.
    let before = service.count(HOOK);
    service.answer(HOOK, Reply::status(204));
    let image = uploaded_and_deleted_at(&gate, 1).await;
    within(MINUTE, "the next event", async || {
        service.count(HOOK) > before
    })
    .await;
    let last = deliveries(&service).pop().unwrap();
    assert!(image.contains(last.image()));
    assert!(!gate.log().contains("whsec_"));
}

#[actix_web::test]
async fn of_gates_that_share_a_store_one_delivers_each_event() {
    let Some(postgres) = Postgres::found().await else {
        return;
    };
    let service = Service::start();
    service.answer(HOOK, Reply::status(204).after(Duration::from_millis(50)));
    let gate = || {
        let store = json!({ "url": postgres.url(), "timeout": "10s" });
        unlimited(&service).store("main", store)
    };
    let apps = [
        gate().start().await,
        gate().start().await,
        gate().start().await,
    ];
    let deleted = stream::iter(0..200)
        .map(|number| uploaded_and_deleted(&apps[0], ["user_1", "user_2"][number % 2]))
        .buffer_unordered(8);
    let expected: BTreeSet<_> = deleted.collect().await;
    let metric = "imgwire_gate_event_deliveries_total{outcome=\"delivered\"}";
    let total = async || {
        let counts = join_all(apps.iter().map(|app| app.metric(metric))).await;
        counts.iter().sum::<f64>()
    };
    within(MINUTE, "all events", async || total().await == 200.0).await;
    assert_eq!(service.count(HOOK), 200);
    assert_eq!(images(&by_id(deliveries(&service))), expected);
}

/// How many events to send through outages. More for a longer search by hand.
fn event_count() -> usize {
    let set = std::env::var("IMGWIRE_GATE_TESTS_EVENTS");
    set.map_or(2000, |count| count.parse().unwrap())
}

/// A gate that sends events, and does not limit deletions.
fn unlimited(service: &Service) -> Gate {
    let reads = json!({ "limit": 1_000_000, "period": "1s" });
    sending(service).server("reads", reads)
}

/// Outages of an app until the events end: it refuses, is away, or is slow.
async fn outages(mut service: Service, has_ended: &AtomicBool) -> Service {
    let pause = async |milliseconds| tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    let mut round = 0;
    while !has_ended.load(Ordering::Relaxed) {
        round += 1;
        service.answer(HOOK, Reply::status(204));
        pause(800).await;
        match round % 3 {
            0 => service.answer(HOOK, Reply::status(500)),
            1 => {
                service.go_down().await;
                pause(500).await;
                service = service.come_back().await;
                continue;
            }
            _ => {
                let slow = Reply::status(204).after(Duration::from_millis(300));
                service.answer(HOOK, slow);
            }
        }
        pause(500).await;
    }
    service.answer(HOOK, Reply::status(204));
    service
}

#[actix_web::test]
async fn no_event_is_lost_in_outages_of_the_app() {
    let count = event_count();
    let service = app_with_events();
    let app = unlimited(&service).start().await;
    let has_ended = AtomicBool::new(false);
    let work = async {
        let deleted = stream::iter(0..count)
            .map(|number| uploaded_and_deleted(&app, ["user_1", "user_2"][number % 2]))
            .buffer_unordered(16);
        let deleted: BTreeSet<_> = deleted.collect().await;
        has_ended.store(true, Ordering::Relaxed);
        deleted
    };
    let (service, expected) = join(outages(service, &has_ended), work).await;
    assert_eq!(expected.len(), count);
    let limit = 2 * MINUTE + Duration::from_millis(20) * u32::try_from(count).unwrap();
    let accepted = "imgwire_gate_event_deliveries_total{outcome=\"delivered\"}";
    within(limit, "the deliveries", async || {
        app.metric(accepted).await >= count as f64
    })
    .await;
    let events = by_id(deliveries(&service));
    assert_eq!(events.len(), count, "each event has one id");
    assert_eq!(images(&events), expected);
    assert!(events.values().all(|event| event.sequence() == 1));
    let failed = app.metric("imgwire_gate_event_deliveries_total{outcome=\"failed\"}");
    assert!(failed.await > 0.0, "the outages mattered");
}
