//! `storage`: what clients and operators see of it.

use std::fs;

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::{
    helpers::{
        Emulator, Gate, TestApp, Token, expression, quota, rate_limit, storage, upload_route,
        workspace_member,
    },
    images::delete,
    process::{GateProcess, program, run, text, write_config},
    storage::{file, held, holding},
    uploads::{CREATE, WORKSPACE, create, created, png, with_policies},
};

fn limited() -> Gate {
    holding(storage().per(["workspace"]).max_bytes(100).max_images(3))
}

async fn allowance(app: &TestApp, query: &str) -> Value {
    let request = app.request(Method::GET, &format!("{WORKSPACE}/allowance{query}"));
    let answer = request.bearer(&Token::of("user_1").sign()).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json
}

#[actix_web::test]
async fn the_allowance_shows_what_is_held_and_whether_the_file_would_fit() {
    let app = limited().start().await;
    created(&app, &Token::of("user_1"), &file(60)).await;
    let limits = json!([{
        "policy": "space", "bytes": { "limit": 100, "used": 60 }, "images": { "limit": 3, "used": 1 },
    }]);
    for (query, code) in [
        ("?size=40", None),
        ("?size=41", Some("storage_full")),
        ("", None),
    ] {
        let mut expected = json!({ "allowed": code.is_none(), "limits": limits });
        if let Some(code) = code {
            expected["code"] = json!(code);
        }
        assert_eq!(allowance(&app, query).await, expected, "{query}");
    }
    created(&app, &Token::of("user_1"), &file(40)).await;
    // No file at all fits.
    let full = allowance(&app, "").await;
    assert_eq!(
        (&full["allowed"], &full["code"]),
        (&json!(false), &json!("storage_full"))
    );
    assert_eq!(held(&app, "ws_1").await, [100, 2, 2]);
}

#[actix_web::test]
async fn the_allowance_leaves_out_what_is_not_limited_and_shows_the_other_limits() {
    let app = with_policies(["signed-in", "member", "space", "burst", "room"])
        .policy("burst", rate_limit().per(["user"]).limit(5))
        .policy("space", storage().per(["user"]).max_bytes("1MB"))
        .policy("room", storage().per(["workspace"]).max_images(0))
        .start()
        .await;
    let shown = allowance(&app, "?size=5").await;
    assert_eq!(
        (&shown["allowed"], &shown["code"]),
        (&json!(false), &json!("storage_full"))
    );
    let limits = shown["limits"].as_array().unwrap();
    assert_eq!(
        (&limits[0]["policy"], &limits[0]["remaining"]),
        (&json!("burst"), &json!(5))
    );
    let storage = [
        json!({ "policy": "space", "bytes": { "limit": 1_000_000, "used": 0 } }),
        json!({ "policy": "room", "images": { "limit": 0, "used": 0 } }),
    ];
    assert_eq!(limits[1..], storage);
}

#[actix_web::test]
async fn explain_says_what_is_full_and_takes_nothing() {
    let app = limited().start().await;
    created(&app, &Token::of("user_1"), &file(60)).await;
    let explain = async |file: Value| {
        let described = json!({
            "route": "/imgwire/{workspace}",
            "subject": { "id": "user_1", "claims": { "workspaces": ["ws_1"] } },
            "workspace": "ws_1",
            "file": file,
        });
        let request = app.request_management(Method::POST, "/explain");
        let mut explained = request.json(&described).await.json;
        let policy = explained["policies"].as_array_mut().unwrap().pop().unwrap();
        (explained, policy)
    };
    let (explained, policy) = explain(json!({ "size": 40 })).await;
    assert_eq!(
        (&explained["outcome"], &policy["verdict"]),
        (&json!("allow"), &json!("allow"))
    );
    assert_eq!(policy["kind"], "storage");
    let (explained, policy) = explain(json!({ "size": 41 })).await;
    assert_eq!(
        (&explained["status"], &explained["code"]),
        (&json!(429), &json!("storage_full"))
    );
    let reason = "the storage is full: workspace=ws_1 uses 60 of 100 bytes, and the file has 41";
    assert_eq!(policy["reason"], reason);
    let (explained, _) = explain(json!({})).await;
    assert_eq!(explained["code"], "file_required");
    assert_eq!(held(&app, "ws_1").await, [60, 1, 1]);
}

#[actix_web::test]
async fn an_operator_reads_what_is_held_and_frees_it_by_deleting_images() {
    let app = limited().start().await;
    created(&app, &Token::of("user_1"), &file(60)).await;
    let shown = app.manage("/quota/space?key=ws_1").await;
    let expected = json!({ "policy": "space", "key": "ws_1", "bytes": 60, "images": 1, "open": 1 });
    assert_eq!(shown.json, expected);
    let refused = app.request_management(Method::DELETE, "/quota/space?key=ws_1");
    let refused = refused.send().await;
    refused.assert_error(404, "not_found");
    let message = "the policy counts storage, which is freed by deleting images";
    assert_eq!(refused.json["message"], message);
    for path in ["/quota/member?key=ws_1", "/quota/unknown?key=ws_1"] {
        let missing = app.manage(path).await;
        missing.assert_error(404, "not_found");
        let message = "there is no such policy with counters that persist";
        assert_eq!(missing.json["message"], message, "{path}");
    }
    assert_eq!(held(&app, "ws_1").await, [60, 1, 1]);
}

#[actix_web::test]
async fn the_command_shows_what_is_held() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&limited(), imgwire.url());
    let gate = GateProcess::start(&config, &[], "info").await;
    let created = awc::Client::default()
        .post(format!("{}{WORKSPACE}{CREATE}", gate.url()))
        .bearer_auth(Token::of("user_1").sign())
        .send_json(&png())
        .await;
    // 48213 bytes do not fit.
    assert_eq!(created.unwrap().status(), 429);
    let quota = |verb: &str| {
        let arguments = ["quota", verb, "space", "--key", "ws_1", "--config"];
        let output = program(&[]).args(arguments).arg(&config).output().unwrap();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let shown = "policy  space\nkey     ws_1\nbytes   0\nimages  0\nopen    0\n";
    assert_eq!(quota("show"), (Some(0), shown.to_owned(), String::new()));
    let (code, _, error) = quota("give-back");
    assert_eq!(code, Some(1));
    assert!(error.contains("freed by deleting images"), "{error}");

    let decisions = gate.decisions();
    let line = &decisions[0];
    for (field, value) in [
        ("outcome", json!("denied")),
        ("status", json!(429)),
        ("code", json!("storage_full")),
        ("policy", json!("space")),
        ("subject", json!("user_1")),
        ("workspace", json!("ws_1")),
        ("level", json!("INFO")),
        (
            "reason",
            json!(
                "the storage is full: workspace=ws_1 uses 0 of 100 bytes, and the file has 48213"
            ),
        ),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert!(line.get("retry_after").is_none(), "{line}");
}

#[actix_web::test]
async fn a_denial_has_the_message_of_the_policy_and_is_counted() {
    let space = storage().per(["user"]).max_images(0);
    let space = space.set("message", json!({ "en": "Delete an image first." }));
    let app = holding(space).start().await;
    let answer = create(&app, &Token::of("user_1"), &png()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (429, "storage_full")
    );
    assert_eq!(answer.json["message"], "Delete an image first.");
    let counted = "imgwire_gate_decisions_total{route=\"/imgwire/{workspace}\",outcome=\"denied\",policy=\"space\",code=\"storage_full\"}";
    assert_eq!(app.metric(counted).await, 1.0);
}

#[actix_web::test]
async fn a_skipped_policy_counts_nothing() {
    let space = storage().per(["user"]).max_images(0);
    let app = holding(space.when("subject.claims.plan == 'free'"));
    let app = app.start().await;
    let paying = Token::of("user_1").with("plan", json!("pro"));
    created(&app, &paying, &png()).await;
    assert_eq!(held(&app, "user_1").await, [0, 0, 0]);
    let free = Token::of("user_1").with("plan", json!("free"));
    let denied = create(&app, &free, &png()).await;
    denied.assert_error(429, "storage_full");
}

#[actix_web::test]
async fn later_policies_deny_before_anything_is_counted() {
    let app = with_policies(["signed-in", "member", "space", "never", "daily"])
        .policy("space", storage().per(["user"]).max_images(1))
        .policy("never", expression("request.file.size > 1000"))
        .policy("daily", quota().per(["user"]).limit(1))
        .start()
        .await;
    let token = Token::of("user_1");
    let denied = create(&app, &token, &file(5)).await;
    denied.assert_error(403, "rule_forbidden");
    assert_eq!(held(&app, "user_1").await, [0, 0, 0]);
    created(&app, &token, &file(1001)).await;
    let denied = create(&app, &token, &file(1001)).await;
    denied.assert_error(429, "storage_full");
}

#[actix_web::test]
async fn full_storage_denies_before_the_policies_after_it() {
    let app = with_policies(["signed-in", "member", "space", "burst"])
        .policy("space", storage().per(["user"]).max_images(1))
        .policy("burst", rate_limit().per(["user"]).limit(2))
        .start()
        .await;
    let token = Token::of("user_1");
    let image = created(&app, &token, &png()).await;
    for _ in 0..3 {
        let answer = create(&app, &token, &png()).await;
        answer.assert_error(429, "storage_full");
    }
    // None of them was an attempt for the later limit.
    assert_eq!(delete(&app, &token, &image).await.status, 204);
    created(&app, &token, &png()).await;
}

#[test]
fn check_and_test_know_storage() {
    let uploads = upload_route("/imgwire/{workspace}", ["signed-in", "member", "space"]);
    let gate = Gate::accepting(["app", "browser"])
        .policy("member", workspace_member().claim("workspaces"))
        .policy(
            "space",
            storage().per(["workspace"]).max_bytes("5GB").max_images(0),
        )
        .route_with(uploads);
    let (folder, path) = write_config(&gate, "https://api.imgwire.dev");
    let config = path.to_str().unwrap();
    let output = run(&["check", config]);
    let printed = text(&output.stdout);
    let line = "3. space (storage): at most 5GB, 0 images and 20 open uploads per workspace, counted in main; else 429\n";
    assert!(printed.contains(line), "{printed}");
    let warning = "policies.space.max_images: 0 denies every upload; write at least 1";
    assert!(printed.contains(warning), "{printed}");

    let cases = folder.path().join("cases.toml");
    let described = r#"
        [[cases]]
        name = "nothing fits"
        expect = "storage_full"
        route = "/imgwire/{workspace}"
        subject = { id = "user_1", claims = { workspaces = ["ws_1"] } }
        workspace = "ws_1"
        file = { size = 5 }
    "#;
    fs::write(&cases, described).unwrap();
    let output = run(&["test", "--config", config, cases.to_str().unwrap()]);
    let printed = text(&output.stdout);
    assert!(printed.contains("1 passed, 0 failed"), "{output:?}");
    assert!(!folder.path().join("gate.db").exists());
}
