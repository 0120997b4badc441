//! The HTTP API: each documented answer, and the fields of every answer.

use actix_web::http::Method;
use serde_json::json;

use crate::helpers::{Gate, Misbehaviour, ROUTE, TestApp, Token};

#[actix_web::test]
async fn a_member_gets_a_token_without_sending_a_body() {
    let app = TestApp::start().await;
    let answer = app.ask_as(&Token::of("user_1")).await;
    answer.assert_token();
    let expires_at = answer.json["expiresAt"].as_str().unwrap();
    assert!(expires_at.parse::<jiff::Timestamp>().is_ok());
    assert_eq!(answer.json.as_object().unwrap().len(), 2);
    assert_eq!(app.imgwire.created(), 1);
}

#[actix_web::test]
async fn a_body_may_name_workspace_purpose_and_file() {
    let app = TestApp::start().await;
    let body = json!({
        "workspace": "ws_1",
        "purpose": "avatar",
        "file": { "name": "me.png", "mimeType": "image/png", "size": 48213 },
    });
    let token = Token::of("user_1").sign();
    app.ask().bearer(&token).json(&body).await.assert_token();
    let nothing = json!({ "workspace": null, "purpose": null, "file": null });
    app.ask().bearer(&token).json(&nothing).await.assert_token();
    let answer = app
        .ask()
        .bearer(&token)
        .header("content-type", "application/json; charset=utf-8");
    answer.send_body("{}").await.assert_token();
}

#[actix_web::test]
async fn a_workspace_is_a_text_or_an_integer() {
    let app = TestApp::start().await;
    let token = Token::of("user_1").with("workspaces", json!([7, "ws_1", "-1", u64::MAX]));
    let token = token.sign();
    let ask = async |workspace: &str| {
        let request = app
            .ask()
            .bearer(&token)
            .header("content-type", "application/json");
        request
            .send_body(format!("{{\"workspace\":{workspace}}}"))
            .await
    };
    for workspace in [
        "7",
        "\"7\"",
        "-1",
        "18446744073709551615",
        "\"18446744073709551615\"",
    ] {
        ask(workspace).await.assert_token();
    }
    for workspace in ["8", "\"07\"", "\"7.0\"", "\" 7\""] {
        ask(workspace)
            .await
            .assert_error(403, "workspace_forbidden");
    }
    for workspace in [
        "7.0",
        "7e0",
        "07",
        "true",
        "[7]",
        "{\"id\":7}",
        "18446744073709551616",
        "\"\"",
    ] {
        ask(workspace).await.assert_error(400, "bad_request");
    }
}

#[actix_web::test]
async fn expires_at_is_omitted_if_imgwire_sends_none() {
    let app = TestApp::start().await;
    for body in [
        r#"{"token":"ut_1"}"#,
        r#"{"token":"ut_1","expires_at":"soon","id":7}"#,
    ] {
        app.imgwire
            .misbehave_next([Misbehaviour::Body(body.into())]);
        let answer = app.ask_as(&Token::of("user_1")).await;
        assert_eq!(answer.json, json!({ "uploadToken": "ut_1" }));
    }
}

#[actix_web::test]
async fn a_request_without_credential_is_401_and_names_the_bearer_scheme() {
    let app = TestApp::start().await;
    let answer = app.ask().send().await;
    answer.assert_error(401, "not_signed_in");
    assert_eq!(answer.header("www-authenticate"), "Bearer");
    assert_eq!(app.imgwire.asked(), 0);
}

#[actix_web::test]
async fn a_bad_credential_is_401_with_error_invalid_token() {
    let app = TestApp::start().await;
    let answer = app.ask().bearer("nonsense").send().await;
    answer.assert_error(401, "invalid_credentials");
    assert_eq!(
        answer.header("www-authenticate"),
        "Bearer error=\"invalid_token\""
    );
    let expired = Token::of("user_1").with("exp", json!(1));
    let answer = app.ask_as(&expired).await;
    answer.assert_error(401, "credentials_expired");
    assert_eq!(
        answer.header("www-authenticate"),
        "Bearer error=\"invalid_token\""
    );
    assert_eq!(app.imgwire.asked(), 0);
}

#[actix_web::test]
async fn a_workspace_of_others_is_403() {
    let app = TestApp::start().await;
    let token = Token::of("user_1").sign();
    let answer = app
        .ask()
        .bearer(&token)
        .json(&json!({ "workspace": "ws_2" }))
        .await;
    answer.assert_error(403, "workspace_forbidden");
    assert_eq!(app.imgwire.asked(), 0);
}

#[actix_web::test]
async fn an_exceeded_limit_is_429_with_retry_after() {
    let app = Gate::standard()
        .set("policies.burst.limit", 1)
        .start()
        .await;
    app.ask_as(&Token::of("user_1")).await.assert_token();
    let answer = app.ask_as(&Token::of("user_1")).await;
    answer.assert_error(429, "rate_limited");
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((59..=60).contains(&seconds), "{seconds}");
    assert_eq!(answer.header("ratelimit-policy"), "\"burst\";q=1;w=60");
    assert!(answer.header("ratelimit").starts_with("\"burst\";r=0;t="));
    assert_eq!(app.imgwire.asked(), 1);
}

#[actix_web::test]
async fn a_200_reports_the_limits_in_ratelimit_headers() {
    let app = TestApp::start().await;
    let answer = app.ask_as(&Token::of("user_1")).await;
    let policy = answer.header("ratelimit-policy");
    assert_eq!(policy, "\"burst\";q=30;w=60, \"daily\";q=500;w=86400");
    let state = answer.header("ratelimit");
    assert!(
        state.starts_with("\"burst\";r=29;t=2, \"daily\";r=499;t="),
        "{state}"
    );
}

#[actix_web::test]
async fn a_failure_of_imgwire_is_500_without_details() {
    let app = Gate::standard().imgwire("retries", 0).start().await;
    let secret = "a detail of the upstream".to_owned();
    app.imgwire.misbehave(Some(Misbehaviour::Body(secret)));
    let answer = app.ask_as(&Token::of("user_1")).await;
    answer.assert_error(500, "imgwire_failed");
    assert!(!answer.text.contains("detail"));
}

#[actix_web::test]
async fn requests_beyond_max_in_flight_are_500_overloaded() {
    let app = Gate::standard().server("max_in_flight", 1).start().await;
    app.imgwire.misbehave_next([Misbehaviour::Hang]);
    let token = Token::of("user_1").sign();
    let first = actix_web::rt::spawn(app.ask().bearer(&token).send());
    crate::helpers::eventually("the first request", async || app.imgwire.asked() == 1).await;
    let answer = app.ask().bearer(&token).send().await;
    answer.assert_error(500, "overloaded");
    assert_eq!(answer.header("retry-after"), "1");
    first.abort();
}

#[actix_web::test]
async fn a_malformed_body_is_400() {
    let app = TestApp::start().await;
    let token = Token::of("user_1").sign();
    let deep = format!("{{\"workspace\":{}", "[".repeat(100_000 / 8));
    let bodies: [&[u8]; 16] = [
        b"{",
        b"nonsense",
        b"[]",
        br#"["ws_1"]"#,
        b"null",
        b"7",
        br#"{"workspace":7.5}"#,
        br#"{"workspace":""}"#,
        br#"{"workspace":"a\nb"}"#,
        br#"{"unknown":1}"#,
        br#"{"workspace":"ws_1","workspace":"ws_2"}"#,
        br#"{"file":["a","b",1]}"#,
        br#"{"file":{"size":-1}}"#,
        b"{\"workspace\":\"\xff\"}",
        br#"{} {}"#,
        deep.as_bytes(),
    ];
    for body in bodies {
        let request = app
            .ask()
            .bearer(&token)
            .header("content-type", "application/json");
        let answer = request.send_body(body.to_vec()).await;
        answer.assert_error(400, "bad_request");
    }
    assert_eq!(app.imgwire.asked(), 0);
}

#[actix_web::test]
async fn a_malformed_workspace_header_is_400() {
    let app = TestApp::start().await;
    let token = Token::of("user_1").sign();
    let empty = app.ask().bearer(&token).header("x-workspace-id", "");
    empty.send().await.assert_error(400, "bad_request");
    let long = app
        .ask()
        .bearer(&token)
        .header("x-workspace-id", &"w".repeat(256));
    long.send().await.assert_error(400, "bad_request");
    let request = app.ask().bearer(&token).header("x-workspace-id", "ws_1");
    request
        .header("x-workspace-id", "ws_2")
        .send()
        .await
        .assert_error(400, "bad_request");
}

#[actix_web::test]
async fn a_body_over_the_limit_is_413() {
    let app = TestApp::start().await;
    let body = format!("{{\"workspace\":\"{}\"}}", "w".repeat(20_000));
    let request = app.ask().header("content-type", "application/json");
    request
        .send_body(body)
        .await
        .assert_error(413, "body_too_large");
}

#[actix_web::test]
async fn a_body_that_is_not_json_is_415() {
    let app = TestApp::start().await;
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
    ] {
        let request = app.ask().header("content-type", content_type);
        request
            .send_body("{}")
            .await
            .assert_error(415, "unsupported_media_type");
    }
    app.ask()
        .send_body("{}")
        .await
        .assert_error(415, "unsupported_media_type");
    let request = app.ask().header("content-type", "application/json");
    let request = request.header("content-encoding", "gzip");
    request
        .send_body("{}")
        .await
        .assert_error(415, "unsupported_media_type");
}

#[actix_web::test]
async fn an_unknown_path_is_404() {
    let app = TestApp::start().await;
    for path in [
        "/",
        "/nope",
        "/metrics",
        "/readyz",
        "/api/imgwire/upload-token/",
        "/%00",
        "/a//b",
    ] {
        app.request(Method::POST, path)
            .send()
            .await
            .assert_error(404, "not_found");
    }
}

#[actix_web::test]
async fn an_unsupported_method_is_405_with_the_allowed_methods() {
    let app = TestApp::start().await;
    for method in [
        Method::GET,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::OPTIONS,
    ] {
        let answer = app.request(method, ROUTE).send().await;
        answer.assert_error(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), "POST");
    }
    let answer = app
        .request(Method::POST, &format!("{ROUTE}/allowance"))
        .send()
        .await;
    answer.assert_error(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), "GET");
    let answer = app
        .request(Method::PUT, "/api/imgwire/session")
        .send()
        .await;
    answer.assert_error(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), "GET, POST, DELETE");
}

#[actix_web::test]
async fn a_valid_request_id_is_kept_and_an_invalid_one_is_replaced() {
    let app = TestApp::start().await;
    let answer = app.ask().header("x-request-id", "trace-1.2:3").send().await;
    assert_eq!(answer.header("x-request-id"), "trace-1.2:3");
    for odd in ["", "a b", "<script>", &"x".repeat(129), "a\"b"] {
        let answer = app.ask().header("x-request-id", odd).send().await;
        answer.assert_error(401, "not_signed_in");
        assert_eq!(answer.header("x-request-id").len(), 36, "{odd}");
    }
    let doubled = app
        .ask()
        .header("x-request-id", "a")
        .header("x-request-id", "b")
        .send()
        .await;
    assert_eq!(doubled.header("x-request-id").len(), 36);
}

#[actix_web::test]
async fn the_allowance_reports_what_a_post_would_get_and_consumes_nothing() {
    let app = TestApp::start().await;
    let path = format!("{ROUTE}/allowance");
    app.request(Method::GET, &path)
        .send()
        .await
        .assert_error(401, "not_signed_in");
    let token = Token::of("user_1").sign();
    for _ in 0..40 {
        let answer = app.request(Method::GET, &path).bearer(&token).send().await;
        assert_eq!(answer.status, 200);
        answer.assert_envelope();
        assert_eq!(answer.json["allowed"], true);
        assert_eq!(answer.json["limits"][0]["policy"], "burst");
        assert_eq!(answer.json["limits"][1]["policy"], "daily");
        assert_eq!(answer.json["limits"][1]["limit"], 500);
        assert_eq!(answer.json["limits"][1]["remaining"], 500);
        let resets_at = answer.json["limits"][1]["resetsAt"].as_str().unwrap();
        assert!(resets_at.parse::<jiff::Timestamp>().unwrap() > jiff::Timestamp::now());
    }
    app.ask_as(&Token::of("user_1")).await.assert_token();
    let answer = app.request(Method::GET, &path).bearer(&token).send().await;
    assert_eq!(answer.json["limits"][1]["remaining"], 499);
    let answer = app
        .request(Method::GET, &path)
        .bearer(&token)
        .header("x-workspace-id", "ws_2");
    let answer = answer.send().await;
    assert_eq!(
        (&answer.json["allowed"], answer.code()),
        (&json!(false), "workspace_forbidden")
    );
}

#[actix_web::test]
async fn two_routes_with_the_same_policy_share_its_counter() {
    let app = Gate::standard()
        .set("policies.burst.limit", 2)
        .chain(["signed-in", "member", "burst"])
        .route("/api/imgwire/avatar-token", ["signed-in", "burst"])
        .start()
        .await;
    let token = Token::of("user_1").sign();
    app.ask().bearer(&token).send().await.assert_token();
    let other = || {
        app.request(Method::POST, "/api/imgwire/avatar-token")
            .bearer(&token)
    };
    other().send().await.assert_token();
    other().send().await.assert_error(429, "rate_limited");
    app.ask()
        .bearer(&token)
        .send()
        .await
        .assert_error(429, "rate_limited");
}
