//! The claims that a session keeps, and sessions that are too large for a cookie.

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::{
    helpers::{
        Answer, Entry, Gate, ROUTE, SESSION, TestApp, Token, eventually, expression, quota,
        remote_decision, workspace_member,
    },
    process::{GateProcess, write_config},
    redis_server::Redis,
    service::{Reply, Service},
};

/// The size that every browser keeps: name, value and attributes together.
const MAX_COOKIE: usize = 4096;

/// A gate whose second policy is `policy`.
fn with_policy(policy: Entry) -> Gate {
    Gate::accepting(["app", "browser"])
        .policy("second", policy)
        .chain(["signed-in", "second"])
}

fn allowing(rule: &str) -> Gate {
    with_policy(expression(rule))
}

async fn exchange(app: &TestApp, token: &Token) -> Answer {
    // The cookies of an app can hold more than an Authorization header.
    let request = app.request(Method::POST, SESSION).bearer(&token.sign());
    request.send().await
}

async fn session(app: &TestApp, token: &Token) -> String {
    let answer = exchange(app, token).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    answer.cookie().to_owned()
}

async fn ask(app: &TestApp, cookie: &str) -> Answer {
    app.ask().header("cookie", cookie).send().await
}

/// Groups as identity providers write them: 36 characters each.
fn groups(count: usize) -> Value {
    let group = |number| format!("{number:08x}-5e6f-4a7b-8c9d-0e1f2a3b4c5d");
    (0..count).map(group).collect::<Vec<_>>().into()
}

#[actix_web::test]
async fn a_session_keeps_only_the_claims_that_policies_read() {
    let token = Token::of("user_1")
        .with("plan", json!("pro"))
        .with("org", json!({ "name": "acme", "size": 7 }))
        .with("secret", json!("x".repeat(3000)));
    let reading = allowing("subject.claims.plan == 'pro' && subject.claims.org.name == 'acme'");
    let app = reading.start().await;
    let cookie = session(&app, &token).await;
    ask(&app, &cookie).await.assert_token();
    for (expression, status) in [
        ("subject.claims.plan == 'pro'", 200),
        ("subject.claims.org.name == 'acme'", 200),
        ("has(subject.claims.org.size)", 403),
        ("has(subject.claims.secret)", 403),
        ("has(subject.claims.workspaces)", 403),
    ] {
        app.reload(&allowing(expression)).unwrap();
        let answer = ask(&app, &cookie).await;
        assert_eq!(answer.status, status, "{expression}");
        // The token has all claims.
        app.ask_as(&token).await.assert_token();
    }
}

#[actix_web::test]
async fn each_kind_of_policy_finds_its_claims_in_a_session() {
    let token = Token::of("user_1")
        .with("plan", json!("free"))
        .with("teams", json!({ "ws_1": "editor" }));
    let member = workspace_member().claim("teams").roles(["editor"]);
    let by_plan = json!({ "claim": "plan", "values": { "free": 1 }, "default": 0 });
    let skipped = expression("false").when("subject.claims.plan != 'free'");
    for (name, policy, expected) in [
        ("workspace_member", member, [200, 200]),
        ("quota", quota().per(["user"]).limit(by_plan), [200, 429]),
        (
            "expression",
            expression("subject.claims.plan == 'free'"),
            [200, 200],
        ),
        (
            "all claims",
            expression("size(subject.claims) >= 5"),
            [200, 200],
        ),
        ("when", skipped, [200, 200]),
    ] {
        let app = with_policy(policy).start().await;
        let cookie = session(&app, &token).await;
        for status in expected {
            let answer = ask(&app, &cookie).await;
            assert_eq!(answer.status, status, "{name}: {answer:?}");
        }
    }
}

#[actix_web::test]
async fn a_service_that_decides_gets_all_claims_of_a_session() {
    let service = Service::start();
    service.answer("/may", Reply::status(200));
    let app = with_policy(remote_decision(&format!("{}/may", service.url)))
        .start()
        .await;
    let token = Token::of("user_1")
        .with("iss", json!("https://app.example.com"))
        .with("org", json!({ "name": "acme" }));
    let cookie = session(&app, &token).await;
    ask(&app, &cookie).await.assert_token();
    let seen = service.seen("/may");
    let facts: Value = serde_json::from_str(&seen[0].body).unwrap();
    assert_eq!(facts["subject"]["claims"], Value::from(token.claims));
}

#[actix_web::test]
async fn the_config_can_name_further_claims_by_name_or_pointer() {
    let kept = ["plan", "/realm_access/roles", "/~1odd"];
    let keeping = |expression: &str| allowing(expression).session("claims", kept);
    let token = Token::of("user_1")
        .with("plan", json!("pro"))
        .with("/odd", json!(1))
        .with("realm_access", json!({ "roles": ["editor"], "other": 1 }));
    let app = keeping("true").start().await;
    let cookie = session(&app, &token).await;
    for (expression, status) in [
        ("subject.claims.plan == 'pro'", 200),
        ("'editor' in subject.claims.realm_access.roles", 200),
        ("subject.claims['/odd'] == 1", 200),
        ("has(subject.claims.realm_access.other)", 403),
        ("has(subject.claims.workspaces)", 403),
    ] {
        app.reload(&keeping(expression)).unwrap();
        let answer = ask(&app, &cookie).await;
        assert_eq!(answer.status, status, "{expression}");
    }
}

#[actix_web::test]
async fn every_session_cookie_is_small_enough_for_browsers() {
    let app = allowing("'x' in subject.claims.groups || true")
        .start()
        .await;
    let with_padding = |length: usize| {
        let padding = json!(["x", "y".repeat(length)]);
        Token::of("user_1").with("groups", padding)
    };
    let mut longest = 0;
    let mut refused = 0;
    for length in 2500..2900 {
        let answer = exchange(&app, &with_padding(length)).await;
        if answer.status == 204 {
            assert_eq!(refused, 0, "{length}: shorter ones were refused");
            longest = answer.header("set-cookie").len();
            assert!(longest <= MAX_COOKIE, "{length}: {longest}");
            let works = ask(&app, answer.cookie()).await;
            assert_eq!(works.status, 200, "{length}: {works:?}");
        } else {
            answer.assert_error(500, "internal");
            assert_eq!(answer.header("set-cookie"), "");
            refused += 1;
        }
    }
    assert!(refused > 0);
    // Base64 grows in steps of four.
    assert!(longest > MAX_COOKIE - 4, "{longest}");
}

#[actix_web::test]
async fn groups_that_no_policy_reads_do_not_count_towards_the_cookie() {
    let app = TestApp::start().await;
    for count in [75, 100] {
        let token = Token::of("user_1").with("groups", groups(count));
        let cookie = session(&app, &token).await;
        ask(&app, &cookie).await.assert_token();
    }
}

#[actix_web::test]
async fn a_session_that_is_too_large_is_refused_with_the_reason_in_the_log() {
    let rule = "subject.claims.groups.exists(group, group == 'x') || true";
    let builder = allowing(rule).server("allowed_origins", ["https://app.example.com"]);
    let (_folder, path) = write_config(&builder, "https://api.imgwire.dev");
    let gate = GateProcess::start_with(&path, &[], "info", &[]).await;
    let url = format!("{}{SESSION}", gate.url());
    let exchange = async |count| {
        let token = Token::of("user_1").with("groups", groups(count)).sign();
        let request = awc::Client::default().post(&url).bearer_auth(token);
        let request = request.insert_header(("origin", "https://app.example.com"));
        request.send().await.unwrap()
    };
    let mut answer = exchange(100).await;
    assert_eq!(answer.status(), 500);
    let header = |name| {
        answer
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap())
    };
    assert_eq!(header("set-cookie"), None);
    assert_eq!(
        header("access-control-allow-origin"),
        Some("https://app.example.com")
    );
    let body: Value = serde_json::from_slice(&answer.body().await.unwrap()).unwrap();
    assert_eq!(body["code"], "internal");
    let line = |status: u16| {
        let lines = gate.lines();
        let mut lines = lines.into_iter().filter(|line| line["path"] == SESSION);
        lines.find(|line| line["status"] == status)
    };
    eventually("the line of the log", async || line(500).is_some()).await;
    let refused = line(500).unwrap();
    assert_eq!(refused["level"], "ERROR");
    assert_eq!(refused["subject"], "user_1");
    assert_eq!(refused["request_id"], body["requestId"]);
    let error = refused["reason"].as_str().unwrap();
    assert!(
        error.contains("the session cookie would have")
            && error.contains("set `store` in [session]")
    );

    // The next session fits, and only it is logged as begun.
    assert_eq!(exchange(10).await.status(), 204);
    eventually("the line of the log", async || line(204).is_some()).await;
    let begun: Vec<_> = gate
        .lines()
        .into_iter()
        .filter(|line| line["path"] == SESSION && line["status"] == 204)
        .collect();
    assert_eq!(begun.len(), 1);
    assert_eq!(begun[0]["identity"], "app");
    assert_ne!(begun[0]["request_id"], body["requestId"]);
}

#[actix_web::test]
async fn a_session_in_redis_holds_more_than_a_cookie_and_none_begins_while_redis_is_down() {
    let Some(mut server) = Redis::here() else {
        return;
    };
    let rule = "subject.claims.groups.exists(group, group == 'x') || true";
    let app = allowing(rule)
        .session("store", "shared")
        .server("allowed_origins", ["https://app.example.com"])
        .store("shared", json!({ "url": server.url() }))
        .start()
        .await;
    let token = Token::of("user_1").with("groups", groups(100));
    eventually("the store's start", async || {
        exchange(&app, &token).await.status == 204
    })
    .await;
    let cookie = session(&app, &token).await;
    assert!(cookie.len() < 300);
    ask(&app, &cookie).await.assert_token();

    server.go_down();
    let origin = "https://app.example.com";
    for method in [Method::POST, Method::GET, Method::DELETE] {
        for cookie in [cookie.as_str(), ""] {
            let request = app
                .request(method.clone(), SESSION)
                .bearer(&token.sign())
                .header("cookie", cookie)
                .header("origin", origin);
            let answer = request.send().await;
            match (&method, cookie) {
                (&Method::GET, "") => answer.assert_error(401, "not_signed_in"),
                (&Method::DELETE, "") => assert_eq!(answer.status, 204),
                _ => answer.assert_error(500, "internal"),
            }
            // The page may read every answer.
            let allowed = answer.header("access-control-allow-origin");
            assert_eq!(allowed, origin, "{method} {answer:?}");
        }
    }
    // A response of the session middleware is measured like one of a handler.
    let measured = "http_server_request_duration_seconds_count{http_request_method=\"POST\",http_route=\"/api/imgwire/session\",http_response_status_code=\"500\"}";
    assert_eq!(app.metric(measured).await, 2.0);
    // A session that cannot be read is a fault only for requests that use it.
    ask(&app, &cookie).await.assert_error(500, "internal");
    let with_token = app.ask().header("cookie", &cookie).bearer(&token.sign());
    with_token.send().await.assert_token();
    let faulted = format!(
        "imgwire_gate_decisions_total{{route=\"{ROUTE}\",outcome=\"faulted\",policy=\"signed-in\",code=\"internal\"}}"
    );
    assert_eq!(app.metric(&faulted).await, 1.0);
}
