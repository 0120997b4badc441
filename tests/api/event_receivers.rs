//! Apps that answer deliveries of events with faulty HTTP, or not at all.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use parking_lot::Mutex;

use crate::{
    events::{app_with_events, delivered, sending, uploaded_and_deleted},
    helpers::{eventually, within},
    hostile_peer::{Act, Asked, HostilePeer, in_segments, interim, response},
    upload_records::{recording, uploaded},
};

const MINUTE: Duration = Duration::from_secs(60);

/// What a hostile app does with the first delivery.
fn attacks() -> Vec<(&'static str, Vec<Act>)> {
    let head = |length: &str| format!("HTTP/1.1 200 OK\r\n{length}\r\n\r\n").into_bytes();
    let moment = Duration::from_millis(400);
    let endless = vec![Act::Send(vec![b'x'; 16 * 1024]); 2000];
    vec![
        ("silent", vec![Act::Fall]),
        ("closed", vec![Act::Close]),
        ("reset", vec![Act::Reset]),
        (
            "no HTTP",
            vec![Act::Send(b"\x16\x03\x01\x02\0".repeat(100)), Act::Close],
        ),
        (
            "endless head",
            vec![
                Act::Send(head("")[..15].to_vec()),
                endless[0].clone(),
                endless[0].clone(),
                endless[0].clone(),
                endless[0].clone(),
                endless[0].clone(),
                Act::Fall,
            ],
        ),
        (
            "slow head",
            in_segments(&head("content-length: 0"), 1, moment),
        ),
        (
            "only interim",
            vec![Act::Send(interim(103)), Act::Send(interim(103)), Act::Fall],
        ),
        (
            "truncated",
            vec![Act::Send(b"HTTP/1.1 204".to_vec()), Act::Close],
        ),
    ]
}

/// An app that attacks the first delivery, and accepts the later ones.
fn hostile(attack: Vec<Act>) -> (HostilePeer, Arc<Mutex<Vec<Asked>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let asked = seen.clone();
    let peer = HostilePeer::start(move |request: &Asked| {
        let mut asked = asked.lock();
        asked.push(request.clone());
        match asked.len() {
            1 => attack.clone(),
            _ => vec![Act::Send(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())],
        }
    });
    (peer, seen)
}

#[actix_web::test]
async fn a_hostile_app_delays_only_its_own_events() {
    join_all(attacks().into_iter().map(async |(name, attack)| {
        let (peer, seen) = hostile(attack);
        let app = recording().events(&peer.url()).start().await;
        uploaded_and_deleted(&app, "user_1").await;
        eventually(name, async || peer.requests() > 0).await;
        // Requests go on.
        let began = Instant::now();
        uploaded(&app, "/mine", "user_2").await;
        assert!(began.elapsed() < Duration::from_secs(5), "{name}");
        within(MINUTE, name, async || {
            app.clock.advance(Duration::from_millis(20));
            peer.requests() > 1
        })
        .await;
        let seen = seen.lock();
        let id = |index: usize| seen[index].header("webhook-id").to_owned();
        assert!(id(0).starts_with("msg_"), "{name}");
        assert_eq!((id(0), &seen[0].body), (id(1), &seen[1].body), "{name}");
    }))
    .await;
}

#[actix_web::test]
async fn a_response_of_success_counts_whatever_its_body_is() {
    let body = |length: &str, rest: Vec<Act>| {
        let head = format!("HTTP/1.1 200 OK\r\n{length}\r\n\r\n").into_bytes();
        [vec![Act::Send(head)], rest].concat()
    };
    let endless = vec![Act::Send(vec![b'x'; 16 * 1024]); 2000];
    let chunk = Act::Send(b"1\r\nx\r\n".to_vec());
    let slow = vec![[chunk, Act::Pause(Duration::from_millis(300))]; 100].concat();
    let interims = vec![Act::Send(interim(103)), Act::Send(response(200, "{}"))];
    let attacks = [
        (
            "endless",
            body("content-length: 999999999999", endless.clone()),
        ),
        ("without an end", body("connection: close", endless)),
        ("slow", body("transfer-encoding: chunked", slow)),
        ("silent", body("content-length: 10", vec![Act::Fall])),
        ("truncated", body("content-length: 10", vec![Act::Close])),
        ("after interim responses", interims),
    ];
    join_all(attacks.into_iter().map(async |(name, attack)| {
        let (peer, _seen) = hostile(attack);
        let app = recording().events(&peer.url()).start().await;
        uploaded_and_deleted(&app, "user_1").await;
        let delivered = "imgwire_gate_event_deliveries_total{outcome=\"delivered\"}";
        eventually(name, async || app.metric(delivered).await == 1.0).await;
        // The next event finds a connection.
        uploaded_and_deleted(&app, "user_1").await;
        eventually(name, async || app.metric(delivered).await == 2.0).await;
        assert_eq!(peer.requests(), 2, "{name}");
    }))
    .await;
}

#[actix_web::test]
async fn a_silent_app_does_not_delay_the_end_of_the_gate_and_its_events_are_due_at_once() {
    let (peer, seen) = hostile(vec![Act::Fall]);
    let mut app = recording().events(&peer.url()).start().await;
    uploaded_and_deleted(&app, "user_1").await;
    eventually("the delivery", async || peer.requests() == 1).await;
    let began = Instant::now();
    app.begin_stop();
    let folder = app.stopped().await;
    assert!(began.elapsed() < Duration::from_secs(3));

    let service = app_with_events();
    let _app = sending(&service).start_in(folder).await;
    let events = delivered(&service, 1).await;
    let seen = seen.lock();
    assert_eq!(seen[0].header("webhook-id"), events[0].id);
    assert_eq!(seen[0].body, events[0].body);
}
