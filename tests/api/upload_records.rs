//! What the tests of records share: gates that record uploads and tokens, and requests to them.

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::helpers::{
    Answer, ENVIRONMENT, Emulator, Gate, ROUTE, Request, SERVER_API_KEY, TestApp, Token,
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
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (
        text(&answer.json["image"]["id"]),
        text(&answer.json["upload_url"]),
    )
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
