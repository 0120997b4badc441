//! What the tests of records share: gates that record uploads and tokens, and requests to them.

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::{
    emulator::PNG,
    helpers::{
        Answer, ENVIRONMENT, Emulator, Gate, ROUTE, Request, SERVER_API_KEY, TestApp, Token,
    },
};

/// An upload route of a workspace, one of users, and a token route, all with records in the store `main`.
pub(crate) fn recording() -> Gate {
    Gate::accepting(["app"])
        .route_with(json!({ "path": ROUTE, "policies": ["signed-in"], "store": "main" }))
        .upload_route("/imgwire/{workspace}")
        .upload_route("/mine")
}

pub(crate) const CREATE: &str = "/api/v1/images/standard_upload";

/// The URL of the gate's listener, or of another server, with the path of a call.
pub(crate) fn post(url: &str) -> Request {
    let client = awc::Client::builder()
        .timeout(std::time::Duration::from_secs(30))
        .finish();
    Request(client.post(url))
}

/// Uploads as a user, and returns the answer.
pub(crate) async fn upload(gate: &str, route: &str, user: &str, body: &Value) -> Answer {
    let request = post(&format!("{gate}{route}{CREATE}"));
    request.bearer(&Token::of(user).sign()).json(body).await
}

/// Uploads a small PNG as a user, and returns the image's id.
pub(crate) async fn uploaded(app: &TestApp, route: &str, user: &str) -> String {
    let answer = upload(&app.url, route, user, &png()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json["image"]["id"].as_str().unwrap().to_owned()
}

/// Uploads as a user; returns the image's id and the URL for its file.
pub(crate) async fn opened(gate: &str, route: &str, user: &str, body: &Value) -> (String, String) {
    let answer = upload(gate, route, user, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    created(&answer)
}

/// The image's id and the URL for its file.
fn created(answer: &Answer) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (
        text(&answer.json["image"]["id"]),
        text(&answer.json["upload_url"]),
    )
}

/// Sends a file to its URL; returns the status.
pub(crate) async fn put(url: &str, content_type: &str, bytes: Vec<u8>) -> u16 {
    let request = awc::Client::default().put(url).content_type(content_type);
    let answer = request.send_body(bytes).await.unwrap();
    answer.status().as_u16()
}

/// Sends the file that [`png`] declares.
pub(crate) async fn put_png(url: &str) {
    assert_eq!(put(url, "image/png", png_of(67)).await, 200);
}

/// A PNG of so many bytes.
pub(crate) fn png_of(size: usize) -> Vec<u8> {
    let mut bytes = PNG.to_vec();
    bytes.resize(size, 0);
    bytes
}

/// Deletes an image as the owner of the account.
pub(crate) async fn delete_past_the_gate(imgwire: &Emulator, image: &str) {
    let url = format!("{}/api/v1/images/{image}", imgwire.url());
    let deletion = awc::Client::default().delete(url);
    let deleted = deletion.bearer_auth(SERVER_API_KEY).send().await;
    assert!(deleted.unwrap().status().is_success());
}

/// How often an image was read at Imgwire.
pub(crate) fn reads(imgwire: &Emulator, image: &str) -> usize {
    let reads = imgwire.reads().into_iter();
    reads.filter(|read| read.image == image).count()
}

/// The state of an image's record.
pub(crate) async fn state(app: &TestApp, image: &str) -> String {
    let records = found(app, &format!("image={image}")).await;
    records[0]["state"].as_str().unwrap().to_owned()
}

pub(crate) fn png() -> Value {
    json!({ "file_name": "a.png", "mime_type": "image/png", "content_length": 67 })
}

/// The images that exist at Imgwire.
pub(crate) fn image_ids(imgwire: &Emulator) -> Vec<String> {
    let images = imgwire.images(ENVIRONMENT);
    let ids = images
        .iter()
        .map(|image| image["id"].as_str().unwrap().to_owned());
    ids.collect()
}

/// Creates an image past the gate, with an upload token if there is one; returns it and the URL for its file.
pub(crate) async fn uploaded_past_the_gate(
    imgwire: &Emulator,
    token: Option<&str>,
) -> (String, String) {
    let query = token.map_or(String::new(), |token| format!("?upload_token={token}"));
    let request = post(&format!("{}{CREATE}{query}", imgwire.url()));
    let answer = request.bearer(SERVER_API_KEY).json(&png()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    created(&answer)
}

/// The records that match a query.
pub(crate) async fn found(app: &TestApp, query: &str) -> Vec<Value> {
    let answer = app.manage(&format!("/images?{query}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json["images"].as_array().unwrap().clone()
}

/// All records, as the export has them.
pub(crate) fn lines(export: &str) -> Vec<Value> {
    let lines = export.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Starts the erasure of a user, whose id is percent-encoded; returns the path of the job.
pub(crate) async fn erase(app: &TestApp, subject: &str) -> String {
    let path = format!("/subjects/{subject}/images");
    let answer = app.request_management(Method::DELETE, &path).send().await;
    assert_eq!(answer.status, 202, "{answer:?}");
    format!("/jobs/{}", answer.json["job"].as_str().unwrap())
}
