//! Keys that name a claim: by its top-level name, taken literally, or by a JSON Pointer. A claim that is not there is
//! named in the reason of the denial.

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::{
    helpers::{
        Emulator, Gate, SESSION, TestApp, Token, eventually, expression, introspection, quota,
        remote_session, workspace_member,
    },
    process::{GateProcess, write_config},
    service::{Reply, Service},
};

/// A gate that requires a role in a workspace by `member`, and limits by the plan at `plan`.
fn gate(member: Value, plan: &str) -> Gate {
    let values = json!({ "pro": 2, "7": 3, "true": 4 });
    let limit = json!({ "claim": plan, "values": values, "default": 1 });
    Gate::accepting(["app"])
        .policy("member", workspace_member())
        .set("policies.member", member)
        .set("policies.member.kind", "workspace_member")
        .policy("daily", quota().per(["user"]).limit(limit))
        .chain(["signed-in", "member", "daily"])
}

/// The verdict and the reason of each policy that `explain` asks about this token.
async fn explained(app: &TestApp, token: &Token) -> Vec<(String, String)> {
    let request = app.request_management(Method::POST, "/explain");
    let answer = request.json(&json!({ "token": token.sign() })).await;
    let policies = answer.json["policies"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    policies
        .map(|policy| (text(&policy["verdict"]), text(&policy["reason"])))
        .collect()
}

async fn last(app: &TestApp, token: &Token) -> (String, String) {
    explained(app, token).await.pop().unwrap()
}

fn deny(reason: &str) -> (String, String) {
    ("deny".to_owned(), reason.to_owned())
}

/// Claims as providers nest them, with names that look like pointers.
fn nested() -> Token {
    Token::of("user_1")
        .with("realm_access", json!({ "roles": ["viewer", "editor"] }))
        .with(
            "app_metadata",
            json!({ "plan": "pro", "user": { "id": 7 } }),
        )
        .with("https://app.example.com/plan", json!("pro"))
        .with("/plan", json!("pro"))
        .with("a/b~c", json!({ "": ["x", { "d": "pro" }] }))
}

#[actix_web::test]
async fn each_key_of_a_jwt_identity_takes_a_name_or_a_pointer() {
    for (key, value, is_accepted) in [
        ("subject_claim", json!("/app_metadata/user/id"), true),
        ("subject_claim", json!("/realm_access/roles/0"), true),
        ("subject_claim", json!("/app_metadata/user"), false),
        ("subject_claim", json!("app_metadata.user.id"), false),
        ("subject_claim", json!("/sub"), true),
        (
            "required_claims",
            json!({ "/app_metadata/plan": "pro" }),
            true,
        ),
        (
            "required_claims",
            json!({ "/app_metadata/plan": ["free", "pro"] }),
            true,
        ),
        (
            "required_claims",
            json!({ "/app_metadata/plan": "free" }),
            false,
        ),
        (
            "required_claims",
            json!({ "app_metadata/plan": "pro" }),
            false,
        ),
        (
            "required_claims",
            json!({ "/realm_access/roles": "editor" }),
            true,
        ),
        (
            "required_claims",
            json!({ "/realm_access/roles/1": "editor" }),
            true,
        ),
        (
            "required_claims",
            json!({ "/realm_access/roles/0": "editor" }),
            false,
        ),
        (
            "required_claims",
            json!({ "/realm_access/roles/01": "editor" }),
            false,
        ),
        (
            "required_claims",
            json!({ "/realm_access/roles/-": "editor" }),
            false,
        ),
        (
            "required_claims",
            json!({ "https://app.example.com/plan": "pro" }),
            true,
        ),
        ("required_claims", json!({ "/plan": "pro" }), false),
        ("required_claims", json!({ "/~1plan": "pro" }), true),
        ("required_claims", json!({ "/a~1b~0c//1/d": "pro" }), true),
        (
            "required_claims",
            json!({ "/app_metadata/user/id": 7 }),
            true,
        ),
        (
            "required_claims",
            json!({ "/app_metadata/user/id": "7" }),
            false,
        ),
        // Only what is there is checked.
        (
            "allowed_claims",
            json!({ "/app_metadata/plan": "pro" }),
            true,
        ),
        (
            "allowed_claims",
            json!({ "/app_metadata/plan": "free" }),
            false,
        ),
        (
            "allowed_claims",
            json!({ "/app_metadata/absent": "free" }),
            true,
        ),
        ("allowed_claims", json!({ "/absent/plan": "free" }), true),
    ] {
        let app = Gate::accepting(["app"]).set(&format!("identities.app.{key}"), &value);
        let answer = app.start().await.ask_as(&nested()).await;
        let expected = if is_accepted {
            ""
        } else {
            "invalid_credentials"
        };
        assert_eq!(answer.code(), expected, "{key} {value}: {answer:?}");
    }
}

#[actix_web::test]
async fn an_introspection_answer_is_read_by_pointers() {
    let issuer = Service::start();
    issuer.answer(
        "/introspect",
        Reply::json(&json!({ "active": true, "ext": { "user": 7, "tenant": "t1" }, "scope": "a upload:write" })),
    );
    for (tenant, scope, status) in [
        ("t1", "upload:write", 200),
        ("t2", "a", 401),
        ("t1", "write", 401),
    ] {
        let opaque = introspection(&format!("{}/introspect", issuer.url))
            .set("subject_claim", "/ext/user")
            .set("required_claims", json!({ "/ext/tenant": tenant }))
            .set("required_scopes", [scope]);
        let app = Gate::accepting(["opaque"])
            .identity("opaque", opaque)
            .policy("rule", expression("subject.id == '7'"))
            .chain(["signed-in", "rule"])
            .start()
            .await;
        let answer = app.ask().bearer("opaque").send().await;
        assert_eq!(answer.status, status, "{tenant} {scope}: {answer:?}");
    }
}

#[actix_web::test]
async fn explain_names_the_claim_that_an_identity_misses() {
    for (key, value, reason) in [
        (
            "subject_claim",
            json!("/app_metadata/uid"),
            "the token has no `/app_metadata/uid`",
        ),
        ("subject_claim", json!("uid"), "the token has no `uid`"),
        (
            "subject_claim",
            json!("realm_access"),
            "the token's `realm_access` is not a string or an integer",
        ),
        (
            "required_claims",
            json!({ "/realm_access/groups": ["a", "b"] }),
            "the token has no `/realm_access/groups`, expected `a` or `b`",
        ),
        (
            "required_claims",
            json!({ "email_verified": true }),
            "the token has no `email_verified`, expected the boolean `true`",
        ),
        (
            "allowed_claims",
            json!({ "/app_metadata/user/id": ["7", 8] }),
            "the token's `/app_metadata/user/id` is the number `7`, expected `7` or the number `8`",
        ),
    ] {
        let app = Gate::accepting(["app"]).set(&format!("identities.app.{key}"), &value);
        let app = app.start().await;
        let expected = deny(&format!("identity `app`: {reason}"));
        assert_eq!(last(&app, &nested()).await, expected, "{key} {value}");
    }
}

#[actix_web::test]
async fn explain_names_the_claim_that_a_membership_misses() {
    let not_a_member = "the request names no workspace, and ";
    let no_role = "the user's role in workspace `ws_1` is not allowed: ";
    for (member, reason) in [
        (
            json!({ "claim": "/o/id" }),
            format!("{not_a_member}the token has no `/o/id`"),
        ),
        (
            json!({ "claim": "orgs" }),
            format!("{not_a_member}the token has no `orgs`"),
        ),
        (
            json!({ "claim": "list", "id_key": "id" }),
            format!("{not_a_member}the token's `list` lists no workspace"),
        ),
        (
            json!({ "claim": "two" }),
            format!("{not_a_member}the user does not have exactly one"),
        ),
        (
            json!({ "claim": "workspaces", "role_claim": "/o/rol", "roles": ["editor"] }),
            format!("{no_role}the token has no `/o/rol`"),
        ),
        (
            json!({ "claim": "workspaces", "role_claim": "list", "roles": ["editor"] }),
            format!("{no_role}the token's `list` is not a role"),
        ),
        (
            json!({ "claim": "workspaces", "roles": ["editor"] }),
            format!("{no_role}the token's `workspaces` has no `role` for it"),
        ),
    ] {
        let app = gate(member.clone(), "plan").start().await;
        let token = nested()
            .with("list", json!([{ "organizationId": "ws_1" }]))
            .with("two", json!(["ws_1", "ws_2"]));
        assert_eq!(last(&app, &token).await, deny(&reason), "{member}");
    }
    let app = gate(json!({ "claim": "/o/id" }), "plan").start().await;
    let request = app.request_management(Method::POST, "/explain");
    let described = json!({ "subject": { "id": 7 }, "workspace": 7 });
    assert_eq!(
        request.json(&described).await.json["policies"][1]["reason"],
        "the user is not a member of workspace `7`: the token has no `/o/id`"
    );
}

#[actix_web::test]
async fn a_limit_depends_on_a_text_an_integer_or_a_boolean_and_explain_says_why_the_default_applies()
 {
    let absent = "the token has no `/app_metadata/plan`, so the default limit applies";
    let other =
        "`values` has no limit for the token's `/app_metadata/plan`, so the default limit applies";
    for (metadata, limit, note) in [
        (json!({ "plan": "pro" }), 2, ""),
        (json!({ "plan": 7 }), 3, ""),
        (json!({ "plan": true }), 4, ""),
        (json!({}), 1, absent),
        (json!("pro"), 1, absent),
        (json!({ "plan": "free" }), 1, other),
        (json!({ "plan": 7.0 }), 1, other),
        (json!({ "plan": ["pro"] }), 1, other),
        (json!({ "plan": null }), 1, other),
    ] {
        let app = gate(json!({ "claim": "workspaces" }), "/app_metadata/plan");
        let app = app.start().await;
        let token = Token::of("user_1").with("app_metadata", metadata.clone());
        let allow = ("allow".to_owned(), note.to_owned());
        assert_eq!(last(&app, &token).await, allow, "{metadata}");
        for _ in 0..limit {
            app.ask_as(&token).await.assert_token();
        }
        let answer = app.ask_as(&token).await;
        answer.assert_error(429, "quota_exhausted");
        let separator = if note.is_empty() { "" } else { "; " };
        let expected = deny(&format!("the quota is used up{separator}{note}"));
        assert_eq!(last(&app, &token).await, expected, "{metadata}");
    }
}

#[actix_web::test]
async fn the_log_names_the_claim_that_is_missing() {
    let imgwire = Emulator::start().unwrap();
    let builder = gate(json!({ "claim": "/o/id" }), "plan")
        .set("identities.app.required_claims", json!({ "/a/b": "c" }));
    let (_folder, config) = write_config(&builder, imgwire.url());
    let gate = GateProcess::start(&config, &[], "info").await;
    let outside = Token::of("user_1").with("a", json!({ "b": "c" }));
    assert_eq!(gate.ask(&Token::of("user_1").sign()).await, Some(401));
    assert_eq!(gate.ask(&outside.sign()).await, Some(403));
    eventually("two lines", async || gate.decisions().len() == 2).await;
    let lines = gate.decisions();
    let reasons: Vec<_> = lines.iter().map(|line| line["reason"].clone()).collect();
    assert_eq!(
        reasons,
        [
            "identity `app`: the token has no `/a/b`, expected `c`",
            "the request names no workspace, and the token has no `/o/id`",
        ]
    );
}

#[actix_web::test]
async fn nested_claims_that_policies_read_are_kept_in_caches_and_sessions() {
    let app = Service::start();
    let user = json!({ "user": { "id": 7, "orgs": [{ "org": { "id": 7 }, "access": { "role": ["editor"] } }],
        "meta": { "plan": "pro", "other": "x" } } });
    app.answer("/session", Reply::json(&user));
    let site = remote_session(&format!("{}/session", app.url), ["cookie:sid"], "/user/id")
        .claims(json!({ "user": "/user" }))
        .cache("1m");
    let member = json!({ "claim": "/user/orgs", "id_key": "/org/id", "role_key": "/access/role", "roles": ["editor"] });
    let gate = gate(member, "/user/meta/plan")
        .identity("site", site)
        .exchange(["site"])
        .set("policies.signed-in.accept", ["site", "browser"])
        .start()
        .await;
    // The second answer comes from the cache, and the third request is a session's.
    for _ in 0..2 {
        let request = gate.ask().header("cookie", "sid=1");
        let answer = request.json(&json!({ "workspace": 7 })).await;
        answer.assert_token();
        assert!(
            answer.header("ratelimit-policy").contains("q=2"),
            "{answer:?}"
        );
    }
    assert_eq!(app.seen("/session").len(), 1);
    let request = gate.request(Method::POST, SESSION);
    let session = request.header("cookie", "sid=1").send().await;
    assert_eq!(session.status, 204, "{session:?}");
    let request = gate.ask().header("cookie", session.cookie());
    let answer = request.json(&json!({ "workspace": "7" })).await;
    // The limit of the plan is reached, so the session has both claims.
    answer.assert_error(429, "quota_exhausted");
    assert!(
        answer.header("ratelimit-policy").contains("q=2"),
        "{answer:?}"
    );
}
