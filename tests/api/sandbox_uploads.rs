//! Uploads through the gate in the sandbox, and the events that it receives in place of an app.

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::{
    helpers::{Answer, Gate, Request, Token, eventually, signed_in},
    sandbox::Sandbox,
    sandbox_config::OwnSandbox,
};

const UPLOADS: &str = "/imgwire/api/v1/images/";

const EVENTS: &str = "/playground/events";

/// A GIF of one pixel.
const GIF: &[u8] =
    b"GIF89a\x01\0\x01\0\x80\0\0\xff\xff\xff\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";

/// An editor of `ws_1`, for whom the tests upload.
struct Editor<'a> {
    sandbox: &'a Sandbox,
    token: String,
}

impl<'a> Editor<'a> {
    async fn of(sandbox: &'a Sandbox) -> Self {
        let state = sandbox.state().await;
        let token = state["users"][0]["token"].as_str().unwrap().to_owned();
        Self { sandbox, token }
    }

    fn request(&self, method: Method, path: &str) -> Request {
        self.sandbox.request(method, path).bearer(&self.token)
    }

    async fn create(&self, size: usize) -> Answer {
        let path = format!("{UPLOADS}standard_upload");
        let body =
            json!({ "file_name": "a.gif", "mime_type": "image/gif", "content_length": size });
        self.request(Method::POST, &path).json(&body).await
    }

    /// Creates an upload and sends its file.
    async fn upload(&self) {
        let created = self.create(GIF.len()).await;
        assert_eq!(created.status, 200, "{created:?}");
        let url = created.json["upload_url"].as_str().unwrap();
        let put = Request(awc::Client::default().put(url));
        let put = put.header("content-type", "image/gif").send_body(GIF);
        assert_eq!(put.await.status, 200);
    }

    async fn images(&self) -> Vec<Value> {
        let answer = self.request(Method::GET, UPLOADS).send().await;
        answer.json.as_array().unwrap().clone()
    }
}

/// The events after the first `known` ones.
async fn events(sandbox: &Sandbox, known: usize) -> Vec<Value> {
    let path = format!("{EVENTS}?after={known}");
    let answer = sandbox.request(Method::GET, &path).send().await;
    answer.json["events"].as_array().unwrap().clone()
}

async fn wait_for_events(sandbox: &Sandbox, count: usize) -> Vec<Value> {
    eventually("the events", async || {
        events(sandbox, 0).await.len() >= count
    })
    .await;
    events(sandbox, 0).await
}

#[actix_web::test]
async fn the_demo_receives_signed_events_about_uploads_through_the_gate() {
    let sandbox = Sandbox::start();
    assert_eq!(sandbox.state().await["receivesEvents"], true);
    let editor = Editor::of(&sandbox).await;
    editor.upload().await;
    let ready = wait_for_events(&sandbox, 1).await.remove(0);
    assert_eq!(ready["signed"], true);
    let body: Value = serde_json::from_str(ready["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["type"], "upload.ready");
    assert_eq!(body["data"]["subject"], "user_1");
    assert_eq!(body["data"]["real"]["size"], GIF.len());
    let images = editor.images().await;
    assert_eq!(images[0]["status"], "READY");
    let path = format!("{UPLOADS}{}", images[0]["id"].as_str().unwrap());
    let deleted = editor.request(Method::DELETE, &path).send().await;
    assert_eq!(deleted.status, 204);
    wait_for_events(&sandbox, 2).await;
    // The page asks only for what it does not know.
    let new = events(&sandbox, 1).await;
    assert_eq!(new.len(), 1);
    assert!(new[0]["body"].as_str().unwrap().contains("image.deleted"));
}

#[actix_web::test]
async fn events_still_arrive_after_the_page_applied_a_config() {
    let sandbox = Sandbox::start();
    let state = sandbox.state().await;
    let config = state["config"]["text"].as_str().unwrap();
    // The port of the config is not necessarily that of the sandbox.
    let text = config.replace("max_images = 5", "max_images = 6");
    let body = json!({ "text": text, "apply": true });
    let request = sandbox.request(Method::POST, "/playground/config");
    assert_eq!(request.json(&body).await.json["applied"], true);
    Editor::of(&sandbox).await.upload().await;
    assert_eq!(wait_for_events(&sandbox, 1).await[0]["signed"], true);
}

#[actix_web::test]
async fn a_config_of_the_page_cannot_send_events_elsewhere() {
    let sandbox = Sandbox::start();
    let state = sandbox.state().await;
    let config = state["config"]["text"].as_str().unwrap();
    for url in [
        "http://127.0.0.1:8080/other",
        "http://127.0.0.1:1/playground/events",
        "https://evil.example/playground/events",
    ] {
        let text = config.replace("http://127.0.0.1:8080/playground/events", url);
        assert_ne!(text, config);
        let request = sandbox.request(Method::POST, "/playground/config");
        let answer = request.json(&json!({ "text": text, "apply": true })).await;
        assert_eq!(answer.json["applied"], false, "{url}");
        let fault = answer.json["faults"][0]["text"].as_str().unwrap();
        assert!(fault.starts_with("events.url: the sandbox connects only to "));
    }
}

#[actix_web::test]
async fn a_forged_event_is_refused_and_marked() {
    let sandbox = Sandbox::start();
    let forge = async |id: &str, body: String| {
        let request = sandbox.request(Method::POST, EVENTS);
        let request = request
            .header("webhook-id", id)
            .header("webhook-timestamp", "1700000000")
            .header("webhook-signature", "v1,AAAA");
        request.send_body(body).await.status.as_u16()
    };
    assert_eq!(forge("msg_1", "{}".to_owned()).await, 401);
    assert_eq!(forge(&"x".repeat(2000), "text".to_owned()).await, 401);
    assert_eq!(forge("msg_3", "x".repeat(17 << 10)).await, 413);
    let kept = events(&sandbox, 0).await;
    let signed: Vec<_> = kept.iter().map(|event| &event["signed"]).collect();
    assert_eq!(signed, [false, false]);
    assert_eq!(kept[0]["headers"]["webhook-id"], "msg_1");
    assert_eq!(kept[1]["headers"]["webhook-id"], Value::Null);
    // A page of another origin cannot fill the list.
    let page = sandbox.request(Method::POST, EVENTS);
    let page = page.header("origin", "http://127.0.0.1:1");
    assert_eq!(page.send_body("{}").await.status, 403);
}

#[actix_web::test]
async fn the_storage_of_the_demo_fills_up_with_images_that_are_open() {
    let sandbox = Sandbox::start();
    let editor = Editor::of(&sandbox).await;
    for _ in 0..3 {
        assert_eq!(editor.create(1000).await.status, 200);
    }
    let full = editor.create(1000).await;
    assert_eq!((full.status.as_u16(), full.code()), (429, "storage_full"));
    let allowance = editor.request(Method::GET, "/imgwire/allowance");
    let allowance = allowance.send().await;
    let limits = allowance.json["limits"].as_array().unwrap();
    let space = limits.iter().find(|limit| limit["policy"] == "space");
    let expected = json!({
        "policy": "space",
        "bytes": { "limit": 1_000_000, "used": 3000 },
        "images": { "limit": 5, "used": 3 },
    });
    assert_eq!(space, Some(&expected));
}

#[actix_web::test]
async fn a_config_of_ones_own_may_send_its_events_to_the_sandbox() {
    let gate = || {
        Gate::bare()
            .policy("signed-in", signed_in(["app"]))
            .upload_route("/imgwire")
    };
    for (url, is_own) in [
        ("http://127.0.0.1:8080/playground/events", true),
        ("http://localhost:1/playground/events", true),
        ("http://127.0.0.1:8080/hooks", false),
        ("https://app.example.com/playground/events", false),
    ] {
        let sandbox = OwnSandbox::start(&gate().events(url));
        let (base, key) = sandbox.page().split_once("/?key=").unwrap();
        let request = |method: Method, path: &str| {
            let client = awc::Client::default();
            let request = Request(client.request(method, format!("{base}{path}")));
            request.header("x-playground-key", key)
        };
        let state = request(Method::GET, "/playground/state").send().await;
        assert_eq!(state.json["receivesEvents"], is_own, "{url}");
        let forged = request(Method::POST, EVENTS).send_body("{}").await;
        assert_eq!(forged.status, if is_own { 401 } else { 404 }, "{url}");
        if !is_own {
            continue;
        }
        let token = Token::of("user_1").sign();
        let path = format!("{UPLOADS}standard_upload");
        let created = request(Method::POST, &path).bearer(&token);
        let created = created.json(&json!({ "file_name": "a.gif" })).await;
        let id = created.json["image"]["id"].as_str().unwrap();
        let path = format!("{UPLOADS}{id}");
        let deleted = request(Method::DELETE, &path).bearer(&token).send().await;
        assert_eq!(deleted.status, 204);
        let last = async || {
            let events = request(Method::GET, EVENTS).send().await;
            events.json["events"].as_array().unwrap().last().cloned()
        };
        eventually("the event", async || {
            last().await.is_some_and(|event| event["signed"] == true)
        })
        .await;
    }
}
