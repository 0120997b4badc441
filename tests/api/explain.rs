//! `explain`, and the counters that the operator can read and reset.

use actix_web::http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::helpers::{Answer, Gate, TestApp, Token, expression, rate_limit};

async fn gate() -> TestApp {
    let burst = rate_limit().per(["user"]).limit(2);
    let paying = "subject.claims.plan == 'pro'";
    Gate::standard()
        .policy("burst", burst.when("subject.id != 'user_free_of_limits'"))
        .policy("paying", expression(paying))
        .policy("watched", expression("false").observe())
        .set("policies.daily.limit", 3)
        .chain(["signed-in", "member", "burst", "paying", "watched", "daily"])
        .start()
        .await
}

async fn explain(app: &TestApp, request: &Value) -> Answer {
    app.request_management(Method::POST, "/explain")
        .json(request)
        .await
}

fn member(plan: &str) -> Value {
    json!({ "subject": { "id": "user_1", "claims": { "workspaces": ["ws_1"], "plan": plan } } })
}

#[actix_web::test]
async fn explain_reports_the_verdict_and_reason_of_each_policy() {
    let app = gate().await;
    let answer = explain(&app, &member("free")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        (
            &answer.json["outcome"],
            &answer.json["status"],
            &answer.json["code"]
        ),
        (&json!("deny"), &json!(403), &json!("rule_forbidden"))
    );
    let said: Vec<_> = answer.json["policies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|policy| {
            assert!(policy["micros"].is_u64());
            let text = |key: &str| policy[key].as_str().unwrap_or_default().to_owned();
            (text("name"), text("kind"), text("verdict"), text("reason"))
        })
        .collect();
    let expected = [
        ("signed-in", "signed_in", "allow", ""),
        ("member", "workspace_member", "allow", ""),
        ("burst", "rate_limit", "allow", ""),
        ("paying", "expression", "deny", "the expression is false"),
    ];
    assert_eq!(said.len(), expected.len(), "{said:?}");
    for (said, expected) in said.iter().zip(expected) {
        let said = (
            said.0.as_str(),
            said.1.as_str(),
            said.2.as_str(),
            said.3.as_str(),
        );
        assert_eq!(said, expected);
    }
}

#[actix_web::test]
async fn explain_consumes_nothing() {
    let app = gate().await;
    for _ in 0..10 {
        let answer = explain(&app, &member("pro")).await;
        assert_eq!(answer.json["outcome"], "allow", "{answer:?}");
        assert!(answer.json.get("code").is_none());
    }
    assert_eq!(app.imgwire.asked(), 0);
    let token = Token::of("user_1").with("plan", json!("pro"));
    for _ in 0..2 {
        app.ask_as(&token).await.assert_token();
    }
    let answer = explain(&app, &member("pro")).await;
    assert_eq!(answer.json["code"], "rate_limited", "{answer:?}");
}

#[actix_web::test]
async fn explain_agrees_with_the_real_request() {
    let app = gate().await;
    let described = |token: &Token| json!({ "token": token.sign() });
    let expired = Token::of("user_1").with("exp", json!(1_000_000));
    for (token, workspace) in [
        (Token::of("user_1").with("plan", json!("pro")), None),
        (Token::of("user_2").with("plan", json!("free")), None),
        (Token::of("user_3"), None),
        (Token::of("user_4").with("plan", json!("pro")), Some("ws_9")),
        (Token::of("user_5").with("workspaces", json!([])), None),
        (
            Token::of("user_free_of_limits").with("plan", json!("pro")),
            None,
        ),
        (expired, None),
        (Token::of("user_6").with("aud", json!("other")), None),
    ] {
        let mut request = described(&token);
        if let Some(workspace) = workspace {
            request["workspace"] = json!(workspace);
        }
        let explained = explain(&app, &request).await;
        let body = workspace.map_or(json!({}), |workspace| json!({ "workspace": workspace }));
        let real = app.ask().bearer(&token.sign()).json(&body).await;
        assert_eq!(
            explained.json["status"],
            real.status.as_u16(),
            "{explained:?}"
        );
        assert_eq!(explained.json["code"], real.json["code"], "{explained:?}");
    }
    let anonymous = explain(&app, &json!({})).await;
    assert_eq!(anonymous.json["code"], "not_signed_in");
}

#[actix_web::test]
async fn a_malformed_description_is_refused() {
    let app = gate().await;
    explain(&app, &json!({ "route": "/nowhere" }))
        .await
        .assert_error(404, "not_found");
    explain(&app, &json!({ "subjct": {} }))
        .await
        .assert_error(400, "bad_request");
    explain(&app, &json!([]))
        .await
        .assert_error(400, "bad_request");
    let form = app
        .request_management(Method::POST, "/explain")
        .header("content-type", "text/plain")
        .send_body("{}");
    form.await.assert_error(415, "unsupported_media_type");
}

#[actix_web::test]
async fn a_token_that_no_header_can_carry_is_refused_and_every_other_is_judged() {
    let app = gate().await;
    for token in ["a\nb", "a\rb", "\0", "\u{7f}", "\r\nX-Injected: 1"] {
        explain(&app, &json!({ "token": token }))
            .await
            .assert_error(400, "bad_request");
    }
    let long = "x".repeat(100_000);
    for (token, code) in [
        ("", "not_signed_in"),
        (" ", "not_signed_in"),
        ("a b", "invalid_credentials"),
        ("\u{e9}", "invalid_credentials"),
        ("\u{1f600}", "invalid_credentials"),
        (&long, "invalid_credentials"),
    ] {
        let explained = explain(&app, &json!({ "token": token })).await;
        assert_eq!(explained.json["code"], code, "{explained:?}");
    }
    explain(&app, &json!({ "token": 1 }))
        .await
        .assert_error(400, "bad_request");
}

#[actix_web::test]
async fn the_operator_can_read_and_reset_a_counter() {
    let app = gate().await;
    let token = Token::of("user_free_of_limits").with("plan", json!("pro"));
    let used = async |app: &TestApp| {
        let answer = app
            .request_management(Method::GET, "/quota/daily?key=ws_1")
            .send()
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json["policy"], "daily");
        assert!(answer.json["resetsAt"].is_string());
        answer.json["used"].as_u64().unwrap()
    };
    assert_eq!(used(&app).await, 0);
    for _ in 0..3 {
        app.ask_as(&token).await.assert_token();
    }
    app.ask_as(&token)
        .await
        .assert_error(429, "quota_exhausted");
    assert_eq!(used(&app).await, 3);
    let given = app
        .request_management(Method::DELETE, "/quota/daily?key=ws_1")
        .send()
        .await;
    assert_eq!(given.status, 204);
    assert_eq!(used(&app).await, 0);
    app.ask_as(&token).await.assert_token();
    for path in ["/quota/nothing?key=ws_1", "/quota/burst?key=user_1"] {
        let answer = app.request_management(Method::GET, path).send().await;
        answer.assert_error(404, "not_found");
    }
    let keyless = app
        .request_management(Method::GET, "/quota/daily")
        .send()
        .await;
    keyless.assert_error(400, "bad_request");
}

#[actix_web::test]
async fn the_public_listener_offers_no_management_endpoint() {
    let app = gate().await;
    for (method, path) in [
        (Method::POST, "/explain"),
        (Method::GET, "/quota/daily?key=ws_1"),
        (Method::DELETE, "/quota/daily?key=ws_1"),
        (Method::GET, "/metrics"),
    ] {
        app.request(method, path)
            .send()
            .await
            .assert_error(404, "not_found");
    }
    let untouched = app.ask().header("x-workspace-id", "ws_1");
    let answer = untouched.bearer(&Token::of("user_1").sign()).send().await;
    // The rule on the plan denies, because the token has no plan: the quota was not touched.
    answer.assert_error(403, "rule_forbidden");
}

/// A random policy: its kind, its mode, and its condition.
fn drawn_policy() -> impl Strategy<Value = String> {
    let kind = prop::sample::select(vec![
        "kind = \"rate_limit\"\nper = [\"user\"]\nlimit = 2\nperiod = \"1h\"",
        "kind = \"rate_limit\"\nper = [\"ip\"]\nlimit = 3\nperiod = \"1h\"",
        "kind = \"quota\"\nper = [\"user\"]\nlimit = 2\nwindow = \"day\"\nstore = \"main\"",
        "kind = \"quota\"\nper = []\nlimit = 4\nwindow = \"day\"\nstore = \"main\"",
        "kind = \"upload_intent\"\npurposes = [\"avatar\"]",
        "kind = \"upload_intent\"\nmime_types = [\"image/png\"]\nmax_size = \"1MB\"",
        "kind = \"expression\"\nallow = \"subject.claims.plan == 'pro'\"",
        "kind = \"expression\"\nallow = \"workspace.role == 'owner'\"",
        "kind = \"expression\"\nallow = \"has(workspace.id) && request.file.size < 1000\"",
        "kind = \"workspace_member\"\nclaim = \"workspaces\"",
        "kind = \"workspace_member\"\nclaim = \"workspaces\"\nroles = [\"owner\"]",
    ]);
    let mode = prop::sample::select(vec!["", "", "", "mode = \"observe\""]);
    let when = prop::sample::select(vec![
        "",
        "",
        "when = \"has(request.purpose)\"",
        "when = \"subject.claims.plan == 'free'\"",
    ]);
    (kind, mode, when).prop_map(|(kind, mode, when)| format!("{kind}\n{mode}\n{when}"))
}

/// A random request: claims of a user, and a body.
fn drawn_request() -> impl Strategy<Value = (Value, Value)> {
    let select = |values: Vec<Value>| prop::sample::select(values);
    let claims = (
        select(vec![json!("user_1"), json!("user_2")]),
        select(vec![json!(null), json!("free"), json!("pro")]),
        select(vec![
            json!(null),
            json!(["ws_1"]),
            json!([{ "id": "ws_1", "role": "owner" }, "ws_2"]),
        ]),
    );
    let body = (
        select(vec![json!(null), json!("ws_1"), json!("ws_2")]),
        select(vec![json!(null), json!("avatar"), json!("banner")]),
        select(vec![
            json!(null),
            json!({ "mimeType": "image/png", "size": 999 }),
            json!({ "mimeType": "image/gif", "size": 2_000_000 }),
        ]),
    );
    let some = |pairs: [(&str, Value); 3]| {
        let pairs = pairs.into_iter().filter(|(_, value)| !value.is_null());
        Value::Object(pairs.map(|(key, value)| (key.to_owned(), value)).collect())
    };
    (claims, body).prop_map(
        move |((sub, plan, workspaces), (workspace, purpose, file))| {
            (
                some([("sub", sub), ("plan", plan), ("workspaces", workspaces)]),
                some([
                    ("workspace", workspace),
                    ("purpose", purpose),
                    ("file", file),
                ]),
            )
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn explain_agrees_with_the_real_request_for_random_chains_and_requests(
        policies in prop::collection::vec(drawn_policy(), 1..5),
        requests in prop::collection::vec(drawn_request(), 1..12),
    ) {
        let names = (0..policies.len()).map(|index| format!("p{index}"));
        let chain: Vec<_> = std::iter::once("signed-in".to_owned()).chain(names).collect();
        let gate = policies.iter().enumerate().fold(Gate::accepting(["app"]), |gate, (index, policy)| {
            gate.policy(&format!("p{index}"), policy.as_str())
        });
        let gate = gate.chain(chain);
        let compared: Result<(), TestCaseError> = actix_web::rt::System::new().block_on(async {
            let app = gate.start().await;
            for (claims, body) in &requests {
                let user = claims["sub"].as_str().unwrap();
                let claims = claims.as_object().unwrap().iter();
                let token = claims.fold(Token::of(user).without("workspaces"), |token, (claim, value)| {
                    token.with(claim, value.clone())
                });
                let mut described = body.clone();
                described["subject"] = json!({ "id": user, "claims": token.claims });
                let explained = explain(&app, &described).await;
                let happened = app.ask().bearer(&token.sign()).json(body).await;
                let told = (&explained.json["status"], explained.json["code"].as_str());
                let code = Some(happened.code()).filter(|code| !code.is_empty());
                prop_assert_eq!(told, (&json!(happened.status.as_u16()), code), "{:?}", body);
            }
            Ok(())
        });
        compared?;
    }
}
