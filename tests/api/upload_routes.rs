//! Upload routes: which paths and methods they serve, and how logs and metrics name them.

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::{
    helpers::{Answer, Emulator, Gate, TestApp, Token, eventually, upload_route, workspace_member},
    process::{GateProcess, write_config},
};

const CREATE: &str = "/api/v1/images/standard_upload";
const IMAGES: &str = "/api/v1/images/";

/// A gate with uploads of workspaces and of users.
fn gate() -> Gate {
    Gate::accepting(["app"])
        .upload_route("/imgwire/{workspace}")
        .upload_route("/mine")
}

fn png() -> Value {
    json!({ "file_name": "me.png", "mime_type": "image/png", "content_length": 48213 })
}

async fn create(app: &TestApp, route: &str, token: &Token) -> Answer {
    let request = app.request(Method::POST, &format!("{route}{CREATE}"));
    request.bearer(&token.sign()).json(&png()).await
}

async fn read(app: &TestApp, path: &str, token: &Token) -> Answer {
    let request = app.request(Method::GET, path);
    request.bearer(&token.sign()).send().await
}

#[actix_web::test]
async fn an_upload_route_serves_the_paths_of_the_sdk() {
    let app = gate().start().await;
    for route in ["/imgwire/ws_1", "/mine"] {
        let id = "0198c9a2-7d3b-7c1a-9d6e-0123456789ab";
        for (method, path) in [
            (Method::POST, CREATE.to_owned()),
            (Method::POST, format!("{CREATE}?upload_token=ut_1")),
            (Method::GET, IMAGES.to_owned()),
            (Method::GET, "/api/v1/images".to_owned()),
            (Method::GET, format!("{IMAGES}?page=2&limit=5")),
            (Method::GET, format!("{IMAGES}{id}")),
            (Method::DELETE, format!("{IMAGES}{id}")),
            (Method::GET, "/allowance".to_owned()),
        ] {
            let request = app.request(method.clone(), &format!("{route}{path}"));
            // The route is found: its chain asks who the client is.
            let answer = match method {
                Method::POST => request.json(&png()).await,
                _ => request.send().await,
            };
            answer.assert_error(401, "not_signed_in");
        }
    }
}

#[actix_web::test]
async fn every_other_path_is_unknown() {
    let app = gate().start().await;
    let long = "i".repeat(65);
    let token = Token::of("user_1");
    for path in [
        "/imgwire",
        "/imgwire/",
        "/imgwire/ws_1",
        "/imgwire/ws_1/",
        "/imgwire//api/v1/images/",
        "/imgwire/api/v1/images/",
        "/imgwire/ws_1/x/api/v1/images/",
        "/imgwire/ws_1/api/v1/images//",
        "/imgwire/ws_1/api/v1/images/a/",
        "/imgwire/ws_1/api/v1/images/a/b",
        "/imgwire/ws_1/api/v1/images/a.b",
        "/imgwire/ws_1/api/v1/images/%61",
        "/imgwire/ws_1/api/v1/images/standard_upload/",
        "/imgwire/ws_1/api/v1/image",
        "/imgwire/ws_1/API/v1/images/",
        "/IMGWIRE/ws_1/api/v1/images/",
        "/imgwire/ws_1/allowance/",
        "/imgwire/ws_1/allowances",
        "/mine",
        "/mine/",
        "/mine/ws_1/api/v1/images/",
        "/mine//api/v1/images/",
        "/mineapi/v1/images/",
        "/api/imgwire/upload-token/api/v1/images/",
        &format!("/mine/api/v1/images/{long}"),
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let request = app.request(method, path).bearer(&token.sign());
            let answer = request.send().await;
            answer.assert_error(404, "not_found");
            assert_eq!(answer.json["message"], "there is no such route", "{path}");
        }
    }
    assert_eq!(app.imgwire.asked(), 0);
}

#[actix_web::test]
async fn a_workspace_in_the_path_is_decoded_once() {
    let app = gate().start().await;
    let token =
        Token::of("user_1").with("workspaces", json!(["ws_1", "a b/c", "ü", "w+", "%5F", 7]));
    for (segment, expected) in [
        ("ws_1", Some(true)),
        ("ws%5F1", Some(true)),
        ("%77%73_1", Some(true)),
        ("a%20b%2Fc", Some(true)),
        ("a%20b%2fc", Some(true)),
        ("%C3%BC", Some(true)),
        ("w+", Some(true)),
        ("w%2B", Some(true)),
        ("%255F", Some(true)),
        ("7", Some(true)),
        // Another workspace.
        ("ws_2", Some(false)),
        ("WS_1", Some(false)),
        ("a+b%2Fc", Some(false)),
        ("ws%255F1", Some(false)),
        ("{workspace}", Some(false)),
        ("%7Bworkspace%7D", Some(false)),
        // No workspace.
        ("%", None),
        ("%5", None),
        ("%zz", None),
        ("ws_1%", None),
        ("%C3", None),
        ("%00", None),
        ("a%0Ab", None),
        (&"w".repeat(256), None),
    ] {
        let answer = read(&app, &format!("/imgwire/{segment}/allowance"), &token).await;
        match expected {
            None => answer.assert_error(404, "not_found"),
            Some(is_member) => {
                assert_eq!(answer.status, 200, "{segment} {answer:?}");
                assert_eq!(answer.json["allowed"], is_member, "{segment}");
                let code = (!is_member).then_some("workspace_forbidden");
                assert_eq!(answer.json["code"].as_str(), code, "{segment}");
            }
        }
    }
}

#[actix_web::test]
async fn other_methods_are_refused_with_those_that_are_allowed() {
    let app = gate().start().await;
    for (path, allowed) in [
        (CREATE, "POST"),
        (IMAGES, "GET"),
        ("/api/v1/images", "GET"),
        ("/api/v1/images/id", "GET, DELETE"),
        ("/allowance", "GET"),
    ] {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            if allowed.split(", ").any(|allowed| allowed == method) {
                continue;
            }
            let parsed = Method::from_bytes(method.as_bytes()).unwrap();
            let path = format!("/imgwire/ws_1{path}");
            let answer = app.request(parsed, &path).send().await;
            assert_eq!(answer.header("allow"), allowed, "{method} {path}");
            match method {
                "HEAD" => assert_eq!(answer.status, 405),
                _ => answer.assert_error(405, "method_not_allowed"),
            }
        }
    }
}

#[actix_web::test]
async fn the_workspace_in_the_path_goes_before_all_others() {
    let member = workspace_member().claim("workspaces");
    let app = gate()
        .policy("member", member)
        .route_with(upload_route("/any", ["signed-in", "member"]))
        .start()
        .await;
    let token = Token::of("user_1").with("workspaces", json!(["ws_1", "ws_2"]));
    for (path, header, code) in [
        ("/imgwire/ws_1/allowance", None, None),
        ("/imgwire/ws_1/allowance", Some("ws_9"), None),
        ("/imgwire/ws_1/allowance?workspace=ws_9", None, None),
        (
            "/imgwire/ws_9/allowance?workspace=ws_1",
            Some("ws_1"),
            Some("workspace_forbidden"),
        ),
        ("/any/allowance", None, Some("workspace_required")),
        ("/any/allowance", Some("ws_2"), None),
        ("/any/allowance?workspace=ws_1", Some("ws_9"), None),
        ("/any/allowance", Some("ws_9"), Some("workspace_forbidden")),
    ] {
        let mut request = app.request(Method::GET, path).bearer(&token.sign());
        if let Some(header) = header {
            request = request.header("x-workspace-id", header);
        }
        let answer = request.send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json["code"].as_str(), code, "{path} {header:?}");
    }
}

#[actix_web::test]
async fn a_page_of_another_origin_may_send_what_the_sdk_sends() {
    let origin = "https://app.example.com";
    let app = gate().server("allowed_origins", [origin]).start().await;
    for (method, path) in [
        ("POST", CREATE),
        ("GET", IMAGES),
        ("GET", "/api/v1/images/id"),
        ("DELETE", "/api/v1/images/id"),
    ] {
        let preflight = app
            .request(Method::OPTIONS, &format!("/imgwire/ws_1{path}"))
            .header("origin", origin)
            .header("access-control-request-method", method)
            .header(
                "access-control-request-headers",
                "authorization,content-type",
            );
        let answer = preflight.send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), origin);
        let methods = answer.header("access-control-allow-methods");
        assert!(
            methods.split(", ").any(|allowed| allowed == method),
            "{methods}"
        );
        let headers = answer.header("access-control-allow-headers");
        assert_eq!(headers, "authorization,content-type");
    }
}

#[actix_web::test]
async fn logs_and_metrics_name_the_template_and_not_the_workspace() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, path) = write_config(&gate(), imgwire.url());
    let gate = GateProcess::start_with(&path, &[], "info", &[]).await;
    let token = Token::of("user_1").sign();
    let client = awc::Client::default();
    let send = async |id: &str, method: Method, path: &str| {
        let url = format!("{}{path}", gate.url());
        let request = client.request(method.clone(), url).bearer_auth(&token);
        let request = request.insert_header(("x-request-id", id));
        let sent = match method {
            Method::POST => request.send_json(&png()).await,
            _ => request.send().await,
        };
        sent.unwrap().status().as_u16()
    };
    let template = "/imgwire/{workspace}";
    for (id, method, path, status, route) in [
        (
            "created",
            Method::POST,
            format!("/imgwire/ws%5F1{CREATE}"),
            200,
            Some(template),
        ),
        (
            "foreign",
            Method::POST,
            format!("/imgwire/ws_2{CREATE}"),
            403,
            Some(template),
        ),
        (
            "listed",
            Method::GET,
            format!("/imgwire/ws_1{IMAGES}"),
            200,
            Some(template),
        ),
        (
            "unknown",
            Method::GET,
            format!("/imgwire/ws_1{IMAGES}none"),
            404,
            Some(template),
        ),
        (
            "method",
            Method::PUT,
            "/mine/allowance".to_owned(),
            405,
            Some("/mine"),
        ),
        (
            "nowhere",
            Method::GET,
            "/imgwire/ws_1".to_owned(),
            404,
            None,
        ),
    ] {
        assert_eq!(send(id, method, &path).await, status, "{id}");
        let lines = || {
            let lines = gate.lines().into_iter();
            let lines = lines.filter(|line| line["request_id"] == id);
            lines.collect::<Vec<_>>()
        };
        eventually("the line", async || !lines().is_empty()).await;
        let lines = lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0]["route"].as_str(), route, "{lines:?}");
    }
    let url = format!(
        "http://{}/metrics",
        gate.management().trim_start_matches("http://")
    );
    let mut answer = client.get(url).send().await.unwrap();
    let metrics = String::from_utf8(answer.body().await.unwrap().to_vec()).unwrap();
    for (method, route, status) in [
        ("POST", format!("{template}{CREATE}"), 200),
        ("POST", format!("{template}{CREATE}"), 403),
        ("GET", format!("{template}{IMAGES}"), 200),
        ("GET", format!("{template}{IMAGES}{{id}}"), 404),
    ] {
        let line = format!(
            "http_server_request_duration_seconds_count{{http_request_method=\"{method}\",http_route=\"{route}\",\
             http_response_status_code=\"{status}\"}} 1"
        );
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
    assert!(
        !metrics.contains("ws_1") && !metrics.contains("ws%5F1"),
        "{metrics}"
    );
}

#[actix_web::test]
async fn a_reload_adds_changes_and_removes_upload_routes() {
    let tokens = || Gate::accepting(["app"]);
    let app = tokens().start().await;
    let token = Token::of("user_1");
    create(&app, "/imgwire/ws_1", &token)
        .await
        .assert_error(404, "not_found");

    app.reload(&tokens().upload_route("/imgwire/{workspace}"))
        .unwrap();
    let created = create(&app, "/imgwire/ws_1", &token).await;
    assert_eq!(created.status, 200, "{created:?}");
    let id = created.json["image"]["id"].as_str().unwrap();
    let read = async |route: &str| read(&app, &format!("{route}{IMAGES}{id}"), &token).await;
    assert_eq!(read("/imgwire/ws_1").await.status, 200);

    // The records stay with the store, whatever becomes of the path.
    app.reload(&tokens().upload_route("/moved/{workspace}"))
        .unwrap();
    read("/imgwire/ws_1").await.assert_error(404, "not_found");
    assert_eq!(read("/moved/ws_1").await.status, 200);

    app.reload(&tokens()).unwrap();
    read("/moved/ws_1").await.assert_error(404, "not_found");
    app.ask_as(&token).await.assert_token();

    let again = tokens().route_with(
        upload_route("/again", ["signed-in"]).metadata(json!({ "owner": "subject.id" })),
    );
    app.reload(&again).unwrap();
    let created = create(&app, "/again", &token).await;
    assert_eq!(
        created.json["image"]["custom_metadata"],
        json!({ "owner": "user_1" })
    );
    // It belongs to a workspace, which this route does not have.
    read("/again").await.assert_error(404, "not_found");
}
