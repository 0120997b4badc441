//! The bodies of requests for uploads.

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::{
    helpers::{ENVIRONMENT, Endpoint, Token},
    uploads::{CREATE, WORKSPACE, create, created, gate, id, png, with},
};

#[actix_web::test]
async fn what_a_client_does_not_declare_is_not_declared_to_imgwire() {
    let app = gate().start().await;
    let nulls = json!({
        "file_name": "a", "mime_type": null, "content_length": null, "hash_sha256": null, "idempotency_key": null,
        "purpose": null, "custom_metadata": null,
    });
    for body in [json!({ "file_name": "a" }), nulls] {
        id(&create(&app, &Token::of("user_1"), &body).await);
    }
    for image in app.imgwire.images(ENVIRONMENT) {
        assert_eq!(image["size_bytes"], 0);
        assert_eq!(image["hash_sha256"], Value::Null);
        assert_eq!(image["purpose"], Value::Null);
        assert_eq!(image["custom_metadata"], json!({}));
    }
}

#[actix_web::test]
async fn unknown_fields_and_the_query_are_ignored() {
    let app = gate().start().await;
    let body = with(
        png(),
        &json!({
            "subject": "user_9", "workspace": "ws_9", "upload_token": "ut_1", "status": "READY", "id": "x",
            "environment_id": "y", "unknown": { "deep": [1] },
        }),
    );
    for query in [
        "",
        "?upload_token=ut_made_up",
        "?upload_token=&x=%",
        "?a=1&a=2",
    ] {
        let path = format!("{WORKSPACE}{CREATE}{query}");
        let request = app.request(Method::POST, &path);
        let answer = request.bearer(&Token::of("user_1").sign());
        id(&answer.json(&body).await);
    }
    for image in app.imgwire.images(ENVIRONMENT) {
        assert_eq!(image["status"], "PENDING");
        assert_eq!(image["environment_id"], ENVIRONMENT);
        assert_eq!(image["upload_token_id"], Value::Null);
    }
}

#[actix_web::test]
async fn the_limits_of_imgwire_itself_are_enforced() {
    let app = gate().start().await;
    let token = Token::of("user_1");
    for (change, code) in [
        (json!({ "content_length": 104_857_601 }), "file_too_large"),
        (json!({ "content_length": u64::MAX }), "file_too_large"),
        (
            json!({ "mime_type": "image/svg+xml" }),
            "file_type_forbidden",
        ),
        (json!({ "mime_type": "text/html" }), "file_type_forbidden"),
        (json!({ "mime_type": "" }), "file_type_forbidden"),
    ] {
        let answer = create(&app, &token, &with(png(), &change)).await;
        answer.assert_error(403, code);
    }
    assert_eq!(app.imgwire.asked_at(Endpoint::Upload), 0);
    // Imgwire accepts one spelling only.
    for spelling in ["IMAGE/PNG", "image/png; charset=binary", " image/png "] {
        let body = with(png(), &json!({ "mime_type": spelling }));
        assert_eq!(create(&app, &token, &body).await.status, 200, "{spelling}");
    }
    for image in app.imgwire.images(ENVIRONMENT) {
        assert_eq!(image["mime_type"], "image/png");
    }
}

#[actix_web::test]
async fn a_malformed_body_is_explained() {
    let app = gate().start().await;
    let token = Token::of("user_1").sign();
    let long = "x".repeat(256);
    let with_long = |field: &str| json!({ "file_name": "a", field: long }).to_string();
    for (body, message) in [
        (
            "",
            "the request has no body; send a JSON object with \"file_name\"",
        ),
        ("[]", "the body must be an object, but it is a list"),
        ("{}", "the body has no field \"file_name\""),
        (
            "{",
            "malformed JSON: it ends too early, at line 1, column 1",
        ),
        (
            r#"{"file_name":null}"#,
            "\"file_name\" must be a string, but it is null",
        ),
        (
            r#"{"file_name":7}"#,
            "\"file_name\" must be a string, but it is a number",
        ),
        (
            r#"{"file_name":""}"#,
            "\"file_name\" must have 1 to 255 characters",
        ),
        (
            r#"{"file_name":"a\nb"}"#,
            "\"file_name\" must not have control characters",
        ),
        (
            &with_long("file_name"),
            "\"file_name\" must have 1 to 255 characters",
        ),
        (
            &with_long("hash_sha256"),
            "\"hash_sha256\" must have 1 to 255 characters",
        ),
        (
            &with_long("idempotency_key"),
            "\"idempotency_key\" must have 1 to 255 characters",
        ),
        (
            &with_long("purpose"),
            "\"purpose\" is longer than 255 bytes",
        ),
        (
            r#"{"file_name":"a","idempotency_key":""}"#,
            "\"idempotency_key\" must have 1 to 255 characters",
        ),
        (r#"{"file_name":"a","purpose":""}"#, "\"purpose\" is empty"),
        (
            r#"{"file_name":"a","content_length":-1}"#,
            "\"content_length\" must be a whole number of at least 0, but it is a negative number",
        ),
        (
            r#"{"file_name":"a","content_length":"1"}"#,
            "\"content_length\" must be a whole number of at least 0, but it is a string",
        ),
        (
            r#"{"file_name":"a","content_length":1.5}"#,
            "\"content_length\" must be a whole number of at least 0, but it is a number with a fraction or an exponent",
        ),
        (
            r#"{"file_name":"a","mime_type":["image/png"]}"#,
            "\"mime_type\" must be a string, but it is a list",
        ),
        (
            r#"{"file_name":"a","custom_metadata":[]}"#,
            "\"custom_metadata\" must be an object, but it is a list",
        ),
        (
            r#"{"file_name":"a","custom_metadata":{"k":null}}"#,
            "\"custom_metadata.k\" must be a string, a number or a boolean, but it is null",
        ),
        (
            r#"{"file_name":"a","custom_metadata":{"k":{}}}"#,
            "\"custom_metadata.k\" must be a string, a number or a boolean, but it is an object",
        ),
        (
            r#"{"file_name":"a","file_name":"b"}"#,
            "a field is listed twice at line 1, column 28",
        ),
        (
            r#"{"file_name":"a","custom_metadata":{"k":1,"\u006b":2}}"#,
            "a field is listed twice at line 1, column 53",
        ),
    ] {
        let request = app.request(Method::POST, &format!("{WORKSPACE}{CREATE}"));
        let request = request
            .bearer(&token)
            .header("content-type", "application/json");
        let answer = request.send_body(body.to_owned()).await;
        answer.assert_error(400, "bad_request");
        assert_eq!(answer.json["message"], message, "{body:.100}");
    }
    let request = app.request(Method::POST, &format!("{WORKSPACE}{CREATE}"));
    let request = request.bearer(&token).header("content-type", "text/plain");
    let answer = request.send_body(png().to_string()).await;
    answer.assert_error(415, "unsupported_media_type");
    let large = with(png(), &json!({ "unknown": "x".repeat(17_000) }));
    let answer = create(&app, &Token::of("user_1"), &large).await;
    answer.assert_error(413, "body_too_large");
    assert_eq!(app.imgwire.asked_at(Endpoint::Upload), 0);
}

#[actix_web::test]
async fn characters_count_and_not_bytes() {
    let app = gate().start().await;
    let name = "ü".repeat(255);
    let body = json!({ "file_name": name, "idempotency_key": name, "hash_sha256": name });
    created(&app, &Token::of("user_1"), &body).await;
    let images = app.imgwire.images(ENVIRONMENT);
    assert_eq!(images[0]["original_filename"], name);
}
