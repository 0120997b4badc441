//! What the log says when the app knows no user for a session.

use serde_json::json;

use crate::{
    helpers::{Emulator, Gate, ROUTE, eventually, remote_session},
    process::{GateProcess, write_config},
    service::{Reply, Service},
};

#[actix_web::test]
async fn the_log_says_why_the_app_knows_no_user() {
    let app = Service::start();
    let imgwire = Emulator::start().unwrap();
    let url = format!("{}/session", app.url);
    let site = remote_session(&url, ["cookie:sid"], "/user/id");
    let gate = Gate::accepting(["site"]).identity("site", site);
    let (_folder, config) = write_config(&gate, imgwire.url());
    let gate = GateProcess::start(&config, &[], "info").await;
    let cases = [
        (
            Reply::json(&json!({ "user": { "name": "Ada" } })),
            "the app's answer has no value at /user/id",
        ),
        (
            Reply::json(&json!({ "user": { "id": null } })),
            "the app's answer has no value at /user/id",
        ),
        (
            Reply::json(&json!(null)),
            "the app's answer has no value at /user/id",
        ),
        (Reply::text(""), "the app's answer is empty"),
        (Reply::status(204), "the app answered 204"),
        (Reply::status(401), "the app answered 401"),
        (Reply::status(419), "the app answered 419"),
    ];
    for (number, (reply, _)) in cases.iter().enumerate() {
        app.answer("/session", reply.clone());
        let request = awc::Client::default().post(format!("{}{ROUTE}", gate.url()));
        let request = request.insert_header(("cookie", format!("sid={number}")));
        assert_eq!(request.send().await.unwrap().status(), 401);
    }
    eventually("the lines", async || gate.decisions().len() == cases.len()).await;
    for (line, (_, reason)) in gate.decisions().iter().zip(cases) {
        assert_eq!(
            line["reason"],
            format!("identity `site`: {reason}"),
            "{line}"
        );
        assert_eq!(line["code"], "not_signed_in", "{line}");
    }
}
