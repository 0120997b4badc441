//! Identities that a trusted proxy forwards.

use serde_json::json;

use crate::helpers::{Gate, TestApp, Token, forwarded, quota, workspace_member};

fn behind<const N: usize>(proxies: [&str; N]) -> Gate {
    let claims = json!({
        "email": "X-Auth-Request-Email",
        "groups": { "header": "X-Auth-Request-Groups", "list": "," },
    });
    Gate::accepting(["edge", "app"])
        .server("trusted_proxies", proxies.to_vec())
        .identity("edge", forwarded("X-Auth-Request-User").claims(claims))
}

async fn trusting() -> TestApp {
    behind(["127.0.0.1"]).start().await
}

#[actix_web::test]
async fn a_header_of_a_trusted_proxy_names_the_user() {
    let app = trusting().await;
    let request = app.ask().header("x-auth-request-user", "user_1");
    request.send().await.assert_token();
    app.ask().send().await.assert_error(401, "not_signed_in");
    let empty = app.ask().header("x-auth-request-user", " ");
    empty.send().await.assert_error(401, "not_signed_in");
}

#[actix_web::test]
async fn headers_of_other_peers_are_ignored() {
    let app = behind(["192.0.2.1"]).start().await;
    let request = app.ask().header("x-auth-request-user", "admin");
    request.send().await.assert_error(401, "not_signed_in");
    let request = app
        .ask()
        .header("x-auth-request-user", "admin")
        .header("x-forwarded-for", "192.0.2.1");
    request.send().await.assert_error(401, "not_signed_in");
    // The next identity decides.
    let request = app
        .ask()
        .header("x-auth-request-user", "admin")
        .header("x_auth_request_user", "admin")
        .bearer(&Token::of("user_1").sign());
    request.send().await.assert_token();
}

#[actix_web::test]
async fn repeated_headers_and_headers_with_underscores_are_refused() {
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
        vec![
            ("x-auth-request-user", "user_1"),
            ("x_auth_request_groups", "admins"),
        ],
        vec![
            ("x-auth-request-user", "user_1"),
            ("x-auth-request-email", "a@example.com"),
            ("x-auth-request-email", "b@example.com"),
        ],
        vec![
            ("x-auth-request-user", "user_1"),
            ("x-auth-request-groups", "a"),
            ("x-auth-request_groups", "admins"),
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
async fn a_subject_that_is_not_a_valid_identifier_is_refused() {
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

#[actix_web::test]
async fn unicode_blanks_are_part_of_a_subject_and_of_a_claim() {
    let gate = behind(["127.0.0.1"])
        .policy("daily", quota().per(["user"]).limit(1))
        .chain(["signed-in", "daily"]);
    let app = gate.start().await;
    let ask = |user: &str| app.ask().header("x-auth-request-user", user).send();
    ask("admin").await.assert_token();
    for user in [" admin", "admin\t ", "admin"] {
        ask(user).await.assert_error(429, "quota_exhausted");
    }
    for user in [
        "\u{a0}admin",
        "admin\u{a0}",
        "\u{3000}admin",
        "\u{2003}admin",
    ] {
        ask(user).await.assert_token();
        ask(user).await.assert_error(429, "quota_exhausted");
    }
    // Next line is a control character.
    let control = ask("\u{85}admin").await;
    control.assert_error(401, "invalid_credentials");

    let gate = behind(["127.0.0.1"])
        .policy("member", workspace_member().claim("groups"))
        .chain(["signed-in", "member"]);
    let app = gate.start().await;
    for (groups, code) in [
        ("ws_2, ws_1\t", ""),
        ("ws_2,\u{a0}ws_1", "workspace_forbidden"),
        ("ws_2,ws_1\u{3000}", "workspace_forbidden"),
    ] {
        let request = app
            .ask()
            .header("x-auth-request-user", "user_1")
            .header("x-auth-request-groups", groups);
        let answer = request.json(&json!({ "workspace": "ws_1" })).await;
        assert_eq!(answer.code(), code, "{groups:?}");
    }
}
