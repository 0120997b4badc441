//! Events to the app: their settings, their form and their signatures.

use std::time::Duration;

use actix_web::http::Method;
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use policies::Clock as _;
use serde_json::{Value, json};
use standardwebhooks::{Webhook, WebhookError};

use crate::{
    helpers::{EVENTS_SECRET, Gate, TestApp, Token, env, eventually, keys, upload_route},
    real_parts::{Running, are_here},
    service::{Reply, Seen, Service},
    upload_records::{
        delete_past_the_gate, erase, found, opened, png, png_of, put, put_png, recording, upload,
        uploaded, uploaded_past_the_gate,
    },
};

pub(crate) const HOOK: &str = "/hooks/uploads";

/// Another secret, of 64 bytes.
const OTHER_SECRET: &str = "whsec_YW5vdGhlci1zZWNyZXQtb2YtdGhlLXRlc3RzLC13aXRoLXNpeHR5LWZvdXItYnl0ZXMtMDEyMzQ1Njc4OS0wMQ==";

/// An app that accepts events.
pub(crate) fn app_with_events() -> Service {
    let service = Service::start();
    service.answer(HOOK, Reply::status(204));
    service
}

/// A gate that records uploads, and sends events to this service.
pub(crate) fn sending(service: &Service) -> Gate {
    recording().events(&format!("{}{HOOK}", service.url))
}

/// An event as the app got it.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) sent_at: i64,
    pub(crate) body: String,
    pub(crate) json: Value,
}

impl Event {
    pub(crate) fn kind(&self) -> &str {
        self.json["type"].as_str().unwrap()
    }

    pub(crate) fn image(&self) -> &str {
        self.json["data"]["image"].as_str().unwrap()
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.json["sequence"].as_u64().unwrap()
    }
}

/// Whether a delivery has a good signature of this secret.
fn is_signed(seen: &Seen, secret: &str) -> bool {
    let mut headers = HeaderMap::new();
    for (name, value) in &seen.headers {
        let name: HeaderName = name.parse().unwrap();
        headers.insert(name, value.parse().unwrap());
    }
    let (webhook, body) = (Webhook::new(secret).unwrap(), seen.body.as_bytes());
    match webhook.verify(body, &headers) {
        Ok(()) => true,
        // A long search verifies its first deliveries minutes after they came.
        Err(WebhookError::TimestampTooOldError) => {
            let time = seen.headers["webhook-timestamp"].parse().unwrap();
            let signature = webhook.sign(&seen.headers["webhook-id"], time, body);
            let signatures = &seen.headers["webhook-signature"];
            signatures
                .split(' ')
                .any(|it| it == signature.as_ref().unwrap())
        }
        Err(_) => false,
    }
}

/// Verifies a delivery as an app does.
pub(crate) fn verified(seen: &Seen) -> Event {
    assert!(is_signed(seen, EVENTS_SECRET), "{seen:?}");
    Event {
        id: seen.headers["webhook-id"].clone(),
        sent_at: seen.headers["webhook-timestamp"].parse().unwrap(),
        body: seen.body.clone(),
        json: serde_json::from_str(&seen.body).unwrap(),
    }
}

/// The deliveries that a service got, which are all verified.
pub(crate) fn deliveries(service: &Service) -> Vec<Event> {
    service.seen(HOOK).iter().map(verified).collect()
}

/// Waits until a service got so many deliveries.
pub(crate) async fn delivered(service: &Service, count: usize) -> Vec<Event> {
    let arrived = async || service.count(HOOK) >= count;
    eventually(&format!("the arrival of {count} events"), arrived).await;
    deliveries(service)
}

/// Deletes an image as a user.
pub(crate) async fn delete(app: &TestApp, route: &str, user: &str, image: &str) {
    let path = format!("{route}/api/v1/images/{image}");
    let request = app.request(Method::DELETE, &path);
    let answer = request.bearer(&Token::of(user).sign()).send().await;
    assert_eq!(answer.status, 204, "{answer:?}");
}

/// Uploads an image and deletes it, which is an event; returns the image's id.
pub(crate) async fn uploaded_and_deleted(app: &TestApp, user: &str) -> String {
    let image = uploaded(app, "/mine", user).await;
    delete(app, "/mine", user, &image).await;
    image
}

#[test]
fn signatures_are_those_of_the_published_example() {
    let webhook = Webhook::new(EVENTS_SECRET).unwrap();
    let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    let signature = webhook.sign(id, 1_614_265_330, br#"{"test": 2432232314}"#);
    let published = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    assert_eq!(signature.unwrap(), published);
}

#[actix_web::test]
async fn an_event_has_the_record_as_operators_see_it_and_is_signed() {
    let service = app_with_events();
    let app = sending(&service).start().await;
    let before = app.clock.now();
    let image = uploaded_and_deleted(&app, "user_1").await;
    let [event] = &delivered(&service, 1).await[..] else {
        panic!("there is more than one event");
    };
    let seen = service.seen(HOOK).remove(0);
    assert_eq!(seen.method, "POST");
    assert_eq!(seen.headers["content-type"], "application/json");
    assert!(seen.headers["user-agent"].starts_with("imgwire-gate/"));
    assert!(!seen.headers.contains_key("authorization"));
    assert!(event.id.starts_with("msg_"), "{event:?}");
    assert!(event.sent_at >= before.as_second(), "{event:?}");

    assert_eq!(keys(&event.json), ["data", "sequence", "timestamp", "type"]);
    assert_eq!(event.kind(), "image.deleted");
    assert_eq!(event.sequence(), 1);
    let at: Timestamp = event.json["timestamp"].as_str().unwrap().parse().unwrap();
    assert!(at >= before && at <= app.clock.now(), "{at}");
    let record = &found(&app, &format!("image={image}")).await[0];
    assert_eq!(event.json["data"], *record);
    assert_eq!(record["subject"], "user_1");
    assert_eq!(record["state"], "deleted");
}

#[actix_web::test]
async fn events_of_an_image_are_numbered_without_gaps() {
    let service = app_with_events();
    let app = sending(&service).start().await;
    app.imgwire
        .change(|scenario| scenario.processing_milliseconds = 0);
    let file = b"\x89PNG\r\n\x1a\n".as_slice();
    let body =
        json!({ "file_name": "a.png", "mime_type": "image/png", "content_length": file.len() });
    let mut images = Vec::new();
    for user in ["user_1", "user_2"] {
        let answer = upload(&app.url, "/mine", user, &body).await;
        let url = answer.json["upload_url"].as_str().unwrap();
        let put = awc::Client::default().put(url).content_type("image/png");
        assert_eq!(put.send_body(file).await.unwrap().status(), 200);
        let image = answer.json["image"]["id"].as_str().unwrap().to_owned();
        let path = format!("/mine/api/v1/images/{image}");
        let token = Token::of(user).sign();
        let shown = app.request(Method::GET, &path).bearer(&token).send().await;
        assert_eq!(shown.status, 200, "{shown:?}");
        images.push(image);
    }
    delivered(&service, 2).await;
    for (image, user) in images.iter().zip(["user_1", "user_2"]) {
        delete(&app, "/mine", user, image).await;
    }
    let events = delivered(&service, 4).await;
    for image in &images {
        let own = events.iter().filter(|event| event.image() == image);
        let mut own: Vec<_> = own.map(|event| (event.sequence(), event.kind())).collect();
        own.sort_unstable();
        assert_eq!(own, [(1, "upload.ready"), (2, "image.deleted")]);
    }
}

#[actix_web::test]
async fn each_change_that_is_noticed_is_an_event() {
    let service = app_with_events();
    let rejecting = upload_route("/rejecting", ["signed-in"]).set("on_mismatch", "delete");
    let impatient = upload_route("/mine", ["signed-in"]).set("abandon_after", "30s");
    let gate = sending(&service).route_with(impatient);
    let app = gate.route_with(rejecting).start().await;
    app.imgwire
        .change(|scenario| scenario.processing_milliseconds = 0);
    let open = async |route: &str| opened(&app.url, route, "user_1", &png()).await;
    let (abandoned, _) = open("/mine").await;
    let (other, url) = open("/mine").await;
    assert_eq!(put(&url, "image/png", png_of(68)).await, 200);
    let (rejected, url) = open("/rejecting").await;
    assert_eq!(put(&url, "image/png", png_of(68)).await, 200);
    app.imgwire.change(|scenario| scenario.quarantine = true);
    let (quarantined, url) = open("/mine").await;
    put_png(&url).await;
    app.clock.advance(Duration::from_secs(60));
    let events = delivered(&service, 6).await;
    for (image, expected) in [
        (abandoned, &["upload.abandoned"][..]),
        (other, &["upload.ready", "upload.mismatched"]),
        (rejected, &["upload.mismatched", "image.deleted"]),
        (quarantined, &["upload.quarantined"]),
    ] {
        let own = events.iter().filter(|event| event.image() == image);
        let mut own: Vec<_> = own.map(|event| (event.sequence(), event.kind())).collect();
        own.sort_unstable();
        let own: Vec<_> = own.into_iter().map(|(_, kind)| kind).collect();
        assert_eq!(own, expected);
    }
}

#[actix_web::test]
async fn a_deletion_past_the_gate_that_a_repeated_key_finds_is_an_event() {
    let service = app_with_events();
    let app = sending(&service).start().await;
    let mut body = png();
    body["idempotency_key"] = "a".into();
    let (image, _) = opened(&app.url, "/mine", "user_1", &body).await;
    delete_past_the_gate(&app.imgwire, &image).await;
    let answer = upload(&app.url, "/mine", "user_1", &body).await;
    answer.assert_error(500, "imgwire_failed");
    let events = delivered(&service, 1).await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(
        (events[0].kind(), events[0].image()),
        ("image.deleted", &*image)
    );
    let (other, _) = opened(&app.url, "/mine", "user_1", &body).await;
    assert_ne!(other, image);
}

#[actix_web::test]
async fn images_of_upload_tokens_are_no_events() {
    let service = app_with_events();
    let app = sending(&service).start().await;
    app.imgwire
        .change(|scenario| scenario.processing_milliseconds = 0);
    let answer = app.ask_as(&Token::of("user_1")).await;
    let token = answer.json["uploadToken"].as_str();
    let (image, url) = uploaded_past_the_gate(&app.imgwire, token).await;
    put_png(&url).await;
    // The record gets the image, which is ready.
    assert_eq!(found(&app, &format!("image={image}")).await.len(), 1);
    erase(&app, "user_1").await;
    let image = uploaded_and_deleted(&app, "user_2").await;
    let events = delivered(&service, 1).await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0].image(), image);
}

#[actix_web::test]
async fn each_secret_gives_a_signature_and_a_reload_replaces_them() {
    let service = app_with_events();
    let gate = || sending(&service).secret("OTHER", OTHER_SECRET);
    let signatures = |seen: &Seen| {
        let signatures = seen.headers["webhook-signature"].split(' ');
        signatures.count()
    };
    let app = gate().start().await;
    let next = async |count: usize| {
        uploaded_and_deleted(&app, "user_1").await;
        eventually("the event", async || service.count(HOOK) == count).await;
        service.seen(HOOK).pop().unwrap()
    };
    let seen = next(1).await;
    assert_eq!(signatures(&seen), 1);
    assert!(is_signed(&seen, EVENTS_SECRET) && !is_signed(&seen, OTHER_SECRET));

    let both = [env("TEST_EVENTS_SECRET"), env("OTHER")];
    app.reload(&gate().set("events.secret", both)).unwrap();
    let seen = next(2).await;
    assert_eq!(signatures(&seen), 2);
    assert!(is_signed(&seen, EVENTS_SECRET) && is_signed(&seen, OTHER_SECRET));

    app.reload(&gate().set("events.secret", env("OTHER")))
        .unwrap();
    let seen = next(3).await;
    assert_eq!(signatures(&seen), 1);
    assert!(!is_signed(&seen, EVENTS_SECRET) && is_signed(&seen, OTHER_SECRET));
}

#[actix_web::test]
async fn what_happens_without_the_section_is_no_event_later() {
    let service = app_with_events();
    let app = recording().start().await;
    uploaded_and_deleted(&app, "user_1").await;
    app.reload(&sending(&service)).unwrap();
    let image = uploaded_and_deleted(&app, "user_1").await;
    let events = delivered(&service, 1).await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0].image(), image);
}

#[actix_web::test]
async fn the_app_of_the_page_on_events_accepts_them_and_refuses_forged_ones() {
    if !are_here(&["node", "npm:express", "npm:standardwebhooks"]) {
        return;
    }
    let (_node, url) = Running::provider("events.mjs", &[EVENTS_SECRET]);
    let hook = format!("{url}{HOOK}");
    let app = recording().events(&hook).start().await;
    let image = uploaded_and_deleted(&app, "user_1").await;
    let accepted = async || {
        let client = awc::Client::default();
        let mut answer = client.get(format!("{url}/accepted")).send().await.unwrap();
        answer.json::<Value>().await.unwrap()
    };
    let has_one = async || {
        accepted()
            .await
            .as_array()
            .is_some_and(|list| list.len() == 1)
    };
    eventually("the event", has_one).await;
    let first = &accepted().await[0];
    assert_eq!(first["event"]["type"], "image.deleted");
    assert_eq!(first["event"]["data"]["image"], image);

    let forged = awc::Client::default().post(&hook);
    let forged = forged
        .insert_header(("content-type", "application/json"))
        .insert_header(("webhook-id", first["id"].as_str().unwrap()))
        .insert_header((
            "webhook-timestamp",
            Timestamp::now().as_second().to_string(),
        ))
        .insert_header((
            "webhook-signature",
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ));
    let refused = forged.send_body(first["event"].to_string()).await.unwrap();
    assert_eq!(refused.status(), 400);
    assert!(has_one().await);
    let delivered = "imgwire_gate_event_deliveries_total{outcome=\"delivered\"}";
    eventually("the end", async || app.metric(delivered).await == 1.0).await;
}
