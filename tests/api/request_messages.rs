//! What the gate tells a client whose request is malformed.

use std::time::Duration;

use actix_web::http::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::helpers::{Answer, Gate, ROUTE, SESSION, TestApp, Token};

fn message(answer: &Answer) -> &str {
    answer.json["message"].as_str().unwrap_or_default()
}

async fn post(gate: &TestApp, content_type: &str, body: &'static str) -> Answer {
    let request = gate.ask().bearer(&Token::of("user_1").sign());
    let request = request.header("content-type", content_type);
    request.send_body(body).await
}

#[actix_web::test]
async fn a_body_that_is_no_request_is_told_the_field_and_what_it_must_be() {
    let gate = TestApp::start().await;
    for (body, expected) in [
        (
            r#"{"workspaceId":"x"}"#,
            r#"unknown field "workspaceId"; did you mean "workspace"? The fields are workspace, purpose, file"#,
        ),
        (
            r#"{"colour":"red"}"#,
            r#"unknown field "colour"; the fields are workspace, purpose, file"#,
        ),
        (
            r#"{"file":{"mimetype":"image/png"}}"#,
            r#"unknown field "mimetype" in "file"; did you mean "mimeType"? The fields are name, mimeType, size"#,
        ),
        (
            r#"{"a\u001b[31m\nb":1}"#,
            r#"unknown field "a\u{1b}[31m\nb"; the fields are workspace, purpose, file"#,
        ),
        (
            r#"{"file":{"size":"big"}}"#,
            r#""file.size" must be a whole number of at least 0, but it is a string"#,
        ),
        (
            r#"{"file":{"size":-1}}"#,
            r#""file.size" must be a whole number of at least 0, but it is a negative number"#,
        ),
        (
            r#"{"file":{"size":1.5}}"#,
            r#""file.size" must be a whole number of at least 0, but it is a number with a fraction or an exponent"#,
        ),
        (
            r#"{"file":{"name":7}}"#,
            r#""file.name" must be a string, but it is a number"#,
        ),
        (
            r#"{"file":"me.png"}"#,
            r#""file" must be an object, but it is a string"#,
        ),
        (
            r#"{"file":[]}"#,
            r#""file" must be an object, but it is a list"#,
        ),
        (
            r#"{"workspace":true}"#,
            r#""workspace" must be a string or an integer, but it is a boolean"#,
        ),
        (r#"{"workspace":""}"#, r#""workspace" is empty"#),
        (
            r#"{"purpose":"a\nb"}"#,
            r#""purpose" contains a control character"#,
        ),
        ("[]", "the body must be an object, but it is a list"),
        ("null", "the body must be an object, but it is null"),
        (
            r#"{"purpose":"a","purpose":"b"}"#,
            "a field is listed twice at line 1, column 24",
        ),
        (
            "{\n  \"purpose\": avatar\n}",
            "malformed JSON at line 2, column 14: expected a value",
        ),
        (
            r#"{"purpose":"a""#,
            "malformed JSON: it ends too early, at line 1, column 14",
        ),
    ] {
        let answer = post(&gate, "application/json", body).await;
        answer.assert_error(400, "bad_request");
        assert_eq!(message(&answer), expected, "{body}");
    }
}

#[actix_web::test]
async fn no_message_repeats_more_than_the_start_of_a_long_name_or_a_type_of_the_code() {
    let gate = TestApp::start().await;
    let long = "x".repeat(9000);
    let deep = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
    let bodies = [
        format!(r#"{{"{long}":1}}"#),
        format!(r#"{{"workspace":"{long}"}}"#),
        deep,
        r#"{"file":{"size":1e400}}"#.to_owned(),
        r#"{"purpose":"\ud800"}"#.to_owned(),
        "tru".to_owned(),
        "{\u{0}}".to_owned(),
    ];
    for body in bodies {
        let request = gate.ask().bearer(&Token::of("user_1").sign());
        let request = request.header("content-type", "application/json");
        let answer = request.send_body(body.clone()).await;
        answer.assert_error(400, "bad_request");
        let message = message(&answer);
        assert!((10..300).contains(&message.len()), "{message}");
        for name in [
            "struct ",
            "u64",
            "serde",
            "TokenRequest",
            "Some(",
            "ident",
            "::",
        ] {
            assert!(!message.contains(name), "{message}");
        }
    }
}

#[actix_web::test]
async fn a_body_of_another_type_or_size_is_told_what_is_accepted() {
    let gate = Gate::standard().server("body_limit", "1KiB").start().await;
    let answer = post(&gate, "text/plain", "{}").await;
    answer.assert_error(415, "unsupported_media_type");
    assert_eq!(
        message(&answer),
        r#"the Content-Type is "text/plain"; send the body as application/json"#
    );
    let answer = gate.ask().send_body("{}").await;
    answer.assert_error(415, "unsupported_media_type");
    assert_eq!(
        message(&answer),
        "the body has no Content-Type; send the body as application/json"
    );
    let request = gate.ask().header("content-type", "application/json");
    let answer = request
        .header("content-encoding", "gzip")
        .send_body("{}")
        .await;
    answer.assert_error(415, "unsupported_media_type");
    assert!(message(&answer).contains(r#"Content-Encoding is "gzip""#));
    let request = gate.ask().header("content-type", "application/json");
    let answer = request.send_body(" ".repeat(1025)).await;
    answer.assert_error(413, "body_too_large");
    assert_eq!(
        message(&answer),
        "the body has more than 1024 bytes, the most that are allowed"
    );
}

#[actix_web::test]
async fn unknown_routes_and_methods_are_told_so() {
    let gate = TestApp::start().await;
    for (method, path, allowed) in [
        (Method::GET, ROUTE, "POST"),
        (Method::POST, &*format!("{ROUTE}/allowance"), "GET"),
        (Method::PUT, SESSION, "GET, POST, DELETE"),
    ] {
        let answer = gate.request(method, path).send().await;
        answer.assert_error(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), allowed);
        assert_eq!(message(&answer), format!("this route allows {allowed}"));
    }
    let answer = gate.request(Method::POST, "/nowhere").send().await;
    answer.assert_error(404, "not_found");
    assert_eq!(message(&answer), "there is no such route");
    assert!(!answer.text.contains(ROUTE));
}

#[actix_web::test]
async fn a_workspace_header_that_is_no_id_is_told_why() {
    let gate = TestApp::start().await;
    for (values, expected) in [
        (&[&b""[..]][..], "the header X-Workspace-Id is empty"),
        (&[b"\xff"], "the header X-Workspace-Id is not ASCII"),
        (
            &[b"ws_1", b"ws_2"],
            "the header X-Workspace-Id occurs twice",
        ),
        (
            &[&[b'x'; 300]],
            "the header X-Workspace-Id is longer than 255 bytes",
        ),
    ] {
        let mut request = gate.ask();
        for value in values {
            request = request.bytes("x-workspace-id", value);
        }
        let answer = request.send().await;
        answer.assert_error(400, "bad_request");
        assert_eq!(message(&answer), expected);
    }
}

#[actix_web::test]
async fn the_management_listener_says_what_is_wrong_with_a_request() {
    let gate = TestApp::start().await;
    let manage = |method: Method, path: &str| gate.request_management(method, path);
    for (method, path, allowed) in [
        (Method::POST, "/livez", "GET"),
        (Method::DELETE, "/metrics", "GET"),
        (Method::GET, "/explain", "POST"),
        (Method::POST, "/log", "GET, PUT"),
        (Method::POST, "/quota/daily", "GET, DELETE"),
    ] {
        let answer = manage(method, path).send().await;
        answer.assert_error(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), allowed, "{path}");
        assert_eq!(message(&answer), format!("this route allows {allowed}"));
    }
    let answer = manage(Method::GET, "/nowhere").send().await;
    answer.assert_error(404, "not_found");
    assert_eq!(message(&answer), "there is no such route");
    let answer = manage(Method::GET, "/quota/burst?key=user_1").send().await;
    answer.assert_error(404, "not_found");
    assert!(message(&answer).contains("no such policy"));
    for query in ["", "?key=a&key=b", "?k=a"] {
        let answer = manage(Method::GET, &format!("/quota/daily{query}"))
            .send()
            .await;
        answer.assert_error(400, "bad_request");
        assert!(message(&answer).contains("?key="), "{query}");
    }
    for (path, method, body, expected) in [
        (
            "/explain",
            Method::POST,
            json!({ "subject": { "claims": {} } }),
            r#""subject" has no field "id""#,
        ),
        (
            "/explain",
            Method::POST,
            json!({ "subject": { "id": "user_1", "claim": {} } }),
            r#"unknown field "claim" in "subject"; did you mean "claims"? The fields are id, claims"#,
        ),
        (
            "/explain",
            Method::POST,
            json!({ "ip": "localhost" }),
            r#""ip" is not an IP address"#,
        ),
        (
            "/explain",
            Method::POST,
            json!({ "route": "/nowhere" }),
            "there is no such route",
        ),
        (
            "/log",
            Method::PUT,
            json!({ "filter": 7 }),
            r#""filter" must be a string, but it is a number"#,
        ),
    ] {
        let answer = manage(method, path).json(&body).await;
        let status = if expected.starts_with("there") {
            404
        } else {
            400
        };
        let code = if status == 404 {
            "not_found"
        } else {
            "bad_request"
        };
        answer.assert_error(status, code);
        assert_eq!(message(&answer), expected, "{body}");
    }
    let body = json!({ "filter": "x".repeat(300_000) });
    let answer = manage(Method::PUT, "/log").json(&body).await;
    answer.assert_error(413, "body_too_large");
    assert!(message(&answer).contains("262144"), "{answer:?}");
}

#[actix_web::test]
async fn a_body_that_does_not_arrive_is_told_so() {
    let gate = Gate::standard()
        .server("request_timeout", "1s")
        .start()
        .await;
    for (sent, expected) in [
        (
            &b"content-length: 9\r\n\r\n{"[..],
            "did not arrive within 1 seconds",
        ),
        (
            b"transfer-encoding: chunked\r\n\r\nzz\r\n",
            "its chunks are malformed",
        ),
    ] {
        let mut stream = TcpStream::connect(gate.url.strip_prefix("http://").unwrap())
            .await
            .unwrap();
        let head =
            format!("POST {ROUTE} HTTP/1.1\r\nhost: gate\r\ncontent-type: application/json\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut answer = Vec::new();
        let reading = async {
            let mut part = [0; 4096];
            while !String::from_utf8_lossy(&answer).contains("message") {
                let read = stream.read(&mut part).await.unwrap();
                if read == 0 {
                    break;
                }
                answer.extend_from_slice(&part[..read]);
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reading)
            .await
            .unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        assert!(
            body["message"].as_str().unwrap().contains(expected),
            "{body}"
        );
    }
}
