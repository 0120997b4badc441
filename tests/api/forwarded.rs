//! Identities that a trusted proxy forwards.

use serde_json::json;

use crate::helpers::{Recipe, TestApp, Token};

const EDGE: &str = r#"
    [identities.edge]
    kind = "forwarded"
    subject = "X-Auth-Request-User"
    claims = { email = "X-Auth-Request-Email", groups = "X-Auth-Request-Groups" }
"#;

async fn behind(trusted_proxies: &str, accept: &str) -> TestApp {
    let recipe = Recipe {
        server: format!("trusted_proxies = {trusted_proxies}"),
        ..Recipe::accepting(accept, EDGE)
    };
    recipe.start().await
}

async fn trusting() -> TestApp {
    behind(r#"["127.0.0.1"]"#, r#"["edge", "app"]"#).await
}

#[actix_web::test]
async fn a_trusted_proxy_is_believed() {
    let app = trusting().await;
    let request = app.ask().header("x-auth-request-user", "user_1");
    request.send().await.assert_token();
    app.ask().send().await.assert_error(401, "not_signed_in");
    let empty = app.ask().header("x-auth-request-user", " ");
    empty.send().await.assert_error(401, "not_signed_in");
}

#[actix_web::test]
async fn from_anyone_else_the_headers_are_as_if_absent() {
    let app = behind(r#"["192.0.2.1"]"#, r#"["edge", "app"]"#).await;
    let request = app.ask().header("x-auth-request-user", "admin");
    request.send().await.assert_error(401, "not_signed_in");
    let request = app
        .ask()
        .header("x-auth-request-user", "admin")
        .header("x-forwarded-for", "192.0.2.1");
    request.send().await.assert_error(401, "not_signed_in");
    // So the next identity decides.
    let request = app
        .ask()
        .header("x-auth-request-user", "admin")
        .header("x_auth_request_user", "admin")
        .bearer(&Token::of("user_1").sign());
    request.send().await.assert_token();
}

#[actix_web::test]
async fn doubled_headers_and_twins_are_refused() {
    for headers in [
        vec![
            ("x-auth-request-user", "user_1"),
            ("x-auth-request-user", "admin"),
        ],
        vec![
            ("x-auth-request-user", "user_1"),
            ("x_auth_request_user", "admin"),
        ],
        vec![
            ("x-auth-request-user", "user_1"),
            ("x-auth_request-user", "admin"),
        ],
        vec![("x_auth_request_user", "admin")],
        vec![("x-auth-request-user", "user_1, admin")],
        vec![
            ("x-auth-request-user", "user_1"),
            ("x_auth_request_groups", "admins"),
        ],
        vec![
            ("x-auth-request-user", "user_1"),
            ("x-auth-request-groups", "a"),
            ("x-auth-request-groups", "admins"),
        ],
    ] {
        let app = trusting().await;
        let request = headers.iter().fold(app.ask(), |request, (name, value)| {
            request.header(name, value)
        });
        request
            .send()
            .await
            .assert_error(401, "invalid_credentials");
    }
}

#[actix_web::test]
async fn claims_come_from_headers_and_lists_from_commas() {
    let recipe = Recipe {
        server: r#"trusted_proxies = ["127.0.0.1"]"#.into(),
        more: EDGE.into(),
        policies: r#"
            [policies.signed-in]
            kind = "signed_in"
            accept = ["edge"]
            [policies.member]
            kind = "workspace_member"
            claim = "groups"
        "#
        .into(),
        chain: r#"["signed-in", "member"]"#.into(),
        ..Recipe::default()
    };
    let app = recipe.start().await;
    for (groups, workspace, code) in [
        ("ws_1", "ws_1", ""),
        ("ws_1, ws_2", "ws_2", ""),
        ("ws_1,,ws_2,", "ws_2", ""),
        ("ws_1, ws_2", "ws_3", "workspace_forbidden"),
        ("ws_1", "ws_3", "workspace_forbidden"),
    ] {
        let request = app
            .ask()
            .header("x-auth-request-user", "user_1")
            .header("x-auth-request-groups", groups);
        let answer = request.json(&json!({ "workspace": workspace })).await;
        assert_eq!(answer.code(), code, "{groups} {workspace}");
    }
}

#[actix_web::test]
async fn a_subject_that_is_no_identifier_is_refused() {
    let app = trusting().await;
    let long = "x".repeat(256);
    for subject in [long.as_str(), "a\tb"] {
        let request = app.ask().header("x-auth-request-user", subject);
        request
            .send()
            .await
            .assert_error(401, "invalid_credentials");
    }
    let umlaut = app.ask().header("x-auth-request-user", "J\u{fc}rgen");
    umlaut.send().await.assert_token();
}
