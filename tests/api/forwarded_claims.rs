//! Claims in the headers of a trusted proxy: texts, declared lists, and subjects with commas.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    helpers::{
        Emulator, Gate, ROUTE, TestApp, eventually, expression, forwarded, quota, workspace_member,
    },
    process::{GateProcess, write_config},
};

/// A gate that accepts the user and these claims from a proxy, and allows what `rule` allows.
fn gate(claims: &Value, rule: &str) -> Gate {
    Gate::accepting(["edge"])
        .server("trusted_proxies", ["127.0.0.1"])
        .identity("edge", forwarded("X-User").claims(claims))
        .policy("rule", expression(rule))
        .chain(["signed-in", "rule"])
}

async fn code(app: &TestApp, headers: &[(&str, &str)]) -> String {
    let request = app.ask().header("x-user", "user_1");
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(name, value)
    });
    request.send().await.code().to_owned()
}

#[actix_web::test]
async fn a_declared_list_is_a_list_and_any_other_header_is_a_text() {
    for (declared, lines, groups) in [
        (json!("X-Groups"), vec!["a"], "'a'"),
        (json!("X-Groups"), vec!["Doe, Jane"], "'Doe, Jane'"),
        (json!({ "header": "X-Groups" }), vec!["a,b"], "'a,b'"),
        (json!("X-Groups"), vec![" a;b "], "'a;b'"),
        (
            json!({ "header": "X-Groups", "list": "," }),
            vec!["a"],
            "['a']",
        ),
        (
            json!({ "header": "X-Groups", "list": "," }),
            vec!["a,b"],
            "['a', 'b']",
        ),
        (
            json!({ "header": "X-Groups", "list": "," }),
            vec!["a, b ,,c,"],
            "['a', 'b', 'c']",
        ),
        (
            json!({ "header": "X-Groups", "list": "," }),
            vec!["a,b", "c", "", "d"],
            "['a', 'b', 'c', 'd']",
        ),
        (json!({ "header": "X-Groups", "list": "," }), vec![""], "[]"),
        (
            json!({ "header": "X-Groups", "list": "," }),
            vec!["a b;c|d"],
            "['a b;c|d']",
        ),
        (
            json!({ "header": "X-Groups", "list": ";" }),
            vec!["a, x; b"],
            "['a, x', 'b']",
        ),
        (
            json!({ "header": "X-Groups", "list": "|" }),
            vec!["a|b", "c"],
            "['a', 'b', 'c']",
        ),
        (
            json!({ "header": "X-Groups", "list": " " }),
            vec!["a  b c"],
            "['a', 'b', 'c']",
        ),
        (
            json!({ "header": "X-Groups", "list": "  " }),
            vec!["a b"],
            "['a', 'b']",
        ),
        (
            json!({ "header": "X-Groups", "list": "::" }),
            vec!["a::b:c"],
            "['a', 'b:c']",
        ),
    ] {
        let app = gate(
            &json!({ "groups": declared }),
            &format!("subject.claims.groups == {groups}"),
        );
        let app = app.start().await;
        let headers: Vec<_> = lines.iter().map(|line| ("x-groups", *line)).collect();
        assert_eq!(code(&app, &headers).await, "", "{declared} {lines:?}");
    }
}

#[actix_web::test]
async fn a_header_that_is_absent_is_no_claim_and_a_text_has_one_line() {
    let claims = json!({ "email": "X-Email", "groups": { "header": "X-Groups", "list": "," } });
    let app = gate(
        &claims,
        "!has(subject.claims.groups) && !has(subject.claims.email)",
    );
    let app = app.start().await;
    assert_eq!(code(&app, &[]).await, "");
    assert_eq!(code(&app, &[("x-email", "")]).await, "");
    assert_eq!(code(&app, &[("x-groups", "")]).await, "rule_forbidden");
    let lines = [("x-email", "a"), ("x-email", "a")];
    assert_eq!(code(&app, &lines).await, "invalid_credentials");
    let twin = [("x-groups", "a"), ("x_groups", "admins")];
    assert_eq!(code(&app, &twin).await, "invalid_credentials");
}

#[actix_web::test]
async fn a_list_names_the_workspaces_of_the_user() {
    let claims = json!({ "groups": { "header": "X-Groups", "list": "," } });
    let app = gate(&claims, "true")
        .policy("member", workspace_member().claim("groups"))
        .chain(["signed-in", "member"])
        .start()
        .await;
    for (groups, workspace, code) in [
        ("ws_1", "ws_1", ""),
        ("ws_1, ws_2", "ws_2", ""),
        ("ws_1,,7,", "7", ""),
        ("ws_1, ws_2", "ws_3", "workspace_forbidden"),
        ("ws_1", "ws_3", "workspace_forbidden"),
    ] {
        let request = app
            .ask()
            .header("x-user", "user_1")
            .header("x-groups", groups);
        let answer = request.json(&json!({ "workspace": workspace })).await;
        assert_eq!(answer.code(), code, "{groups} {workspace}");
    }
}

#[actix_web::test]
async fn one_group_or_many_in_one_text_are_a_list_for_an_expression() {
    let claims = json!({ "groups": "X-Groups" });
    let app = gate(&claims, "'admins' in split(subject.claims.groups, ';')")
        .start()
        .await;
    for (groups, expected) in [
        ("admins", ""),
        ("staff;admins", ""),
        ("staff;badmins", "rule_forbidden"),
        ("", "rule_forbidden"),
    ] {
        assert_eq!(
            code(&app, &[("x-groups", groups)]).await,
            expected,
            "{groups}"
        );
    }
}

#[actix_web::test]
async fn a_subject_with_commas_is_one_user() {
    let names = [
        "CN=Jane Doe,OU=Development,O=Example",
        "CN = Jane Doe, OU = Development, O = Example",
        "emailAddress=jane@example.com,CN=Doe\\, Jane",
        "CN=J\u{fc}rgen,O=Example",
    ];
    for name in names {
        let app = gate(&json!({}), "true")
            .policy("daily", quota().per(["user"]).limit(1))
            .chain(["signed-in", "daily"])
            .start()
            .await;
        let ask = || app.ask().header("x-user", name).send();
        ask().await.assert_token();
        ask().await.assert_error(429, "quota_exhausted");
        // Another name that begins like this one is another user.
        let other = app.ask().header("x-user", &format!("{name},C=DE"));
        other.send().await.assert_token();
        let twice = app.ask().header("x-user", name).header("x-user", name);
        twice.send().await.assert_error(401, "invalid_credentials");
    }
}

#[actix_web::test]
async fn a_claim_that_is_not_utf_8_is_lost_and_its_user_is_not() {
    let claims = json!({
        "name": "X-Name",
        "email": "X-Email",
        "groups": { "header": "X-Groups", "list": "," },
    });
    let rule = "!has(subject.claims.name) && subject.claims.email == 'a@example.com' && !has(subject.claims.groups)";
    let app = gate(&claims, rule).start().await;
    let request = app
        .ask()
        .header("x-user", "user_1")
        .header("x-email", "a@example.com");
    let request = request.bytes("x-name", b"J\xfcrgen");
    let request = request
        .header("x-groups", "a")
        .bytes("x-groups", b"b\xe9,c");
    request.send().await.assert_token();
    // The name of the user itself must be readable.
    let request = app.ask().bytes("x-user", b"J\xfcrgen");
    request
        .send()
        .await
        .assert_error(401, "invalid_credentials");
}

/// Asks with a name in Latin-1. Returns the status.
async fn ask_as_juergen(gate: &GateProcess) -> u16 {
    let client = awc::Client::builder()
        .timeout(Duration::from_secs(20))
        .finish();
    let name = actix_web::http::header::HeaderValue::from_bytes(b"J\xfcrgen").unwrap();
    let request = client.post(format!("{}{ROUTE}", gate.url()));
    let request = request
        .insert_header(("x-user", "user_1"))
        .insert_header(("x-name", name));
    request.send().await.unwrap().status().as_u16()
}

#[actix_web::test]
async fn the_log_names_a_claim_that_is_lost() {
    let imgwire = Emulator::start().unwrap();
    let claims = json!({ "name": "X-Name" });
    let builder = gate(&claims, "subject.claims.name != ''");
    let (_folder, config) = write_config(&builder, imgwire.url());
    let gate = GateProcess::start(&config, &[], "info").await;
    assert_eq!(ask_as_juergen(&gate).await, 403);
    eventually("the decision", async || gate.decisions().len() == 1).await;
    let lines = gate.lines();
    let warning = lines
        .iter()
        .find(|line| line["level"] == "WARN" && line["claim"] == "name");
    let warning = warning.unwrap_or_else(|| panic!("{}", gate.log()));
    assert_eq!(
        warning["message"],
        "forwarded claim ignored: its header is not UTF-8"
    );
    assert_eq!(
        (&warning["identity"], &warning["header"]),
        (&json!("edge"), &json!("x-name"))
    );
    assert_eq!(gate.decisions()[0]["subject"], "user_1");
    let reason = gate.decisions()[0]["reason"].to_string();
    assert!(reason.contains("there is no `name`"), "{reason}");
}

#[actix_web::test]
async fn lines_about_lost_claims_are_limited() {
    const REQUESTS: u64 = 150;
    let imgwire = Emulator::start().unwrap();
    let builder = gate(&json!({ "name": "X-Name" }), "subject.claims.name != ''");
    let (_folder, config) = write_config(&builder, imgwire.url());
    let gate = GateProcess::start(&config, &[], "info").await;
    for _ in 0..REQUESTS {
        assert_eq!(ask_as_juergen(&gate).await, 403);
    }
    let counts = || {
        let lines = gate.lines();
        let written = lines.iter().filter(|line| line["claim"] == "name").count() as u64;
        let left_out = lines.iter().filter_map(|line| line["left_out"].as_u64());
        (written, left_out.collect::<Vec<_>>())
    };
    eventually("the count", async || {
        let (written, left_out) = counts();
        written + left_out.iter().sum::<u64>() == REQUESTS
    })
    .await;
    let (written, left_out) = counts();
    let seconds = left_out.len() as u64 + 2;
    assert!(written <= 20 * seconds, "{written} in {seconds}");
    assert!(!left_out.is_empty());
    // Decisions are not affected.
    eventually("the decisions", async || {
        gate.decisions().len() as u64 == REQUESTS
    })
    .await;
}

#[actix_web::test]
async fn claims_that_policies_read_are_bounded_and_others_do_not_count() {
    let claims = json!({ "groups": { "header": "X-Groups", "list": "," } });
    let entries = |count: usize| vec!["a"; count].join(",");
    let (few, many) = (entries(100), entries(3500));
    let app = gate(&claims, "'a' in subject.claims.groups").start().await;
    assert_eq!(code(&app, &[("x-groups", &few)]).await, "");
    assert_eq!(
        code(&app, &[("x-groups", &many)]).await,
        "invalid_credentials"
    );
    let app = gate(&claims, "true").start().await;
    assert_eq!(code(&app, &[("x-groups", &many)]).await, "");
}
