//! Rate limits and quotas.

use std::time::Duration;

use actix_web::http::Method;
use futures_util::future::join_all;
use serde_json::json;

use crate::helpers::{
    Entry, Gate, Misbehaviour, ROUTE, TestApp, Token, quota, rate_limit, upload_intent,
};

/// A gate whose last policy is this limit, behind `signed_in` and `workspace_member`.
fn with_limit(policy: Entry) -> Gate {
    Gate::standard()
        .policy("limit", policy)
        .chain(["signed-in", "member", "limit"])
}

/// A daily quota of the workspace.
fn with_quota(limit: u64) -> Gate {
    with_limit(quota().per(["workspace"]).limit(limit))
}

/// A rate limit of the user.
fn with_rate_limit(limit: u64) -> Gate {
    with_limit(rate_limit().per(["user"]).limit(limit))
}

pub(crate) async fn remaining(app: &TestApp) -> u64 {
    let path = format!("{}/allowance", crate::helpers::ROUTE);
    let request = app.request(actix_web::http::Method::GET, &path);
    let answer = request.bearer(&Token::of("user_1").sign()).send().await;
    answer.json["limits"][0]["remaining"].as_u64().unwrap()
}

#[actix_web::test]
async fn concurrent_requests_never_exceed_the_quota() {
    let app = with_quota(100).start().await;
    let token = Token::of("user_1").sign();
    let callers = (0..64).map(|_| async {
        let mut issued = 0;
        for _ in 0..4 {
            let answer = app.ask().bearer(&token).send().await;
            match answer.status.as_u16() {
                200 => issued += 1,
                _ => answer.assert_error(429, "quota_exhausted"),
            }
        }
        issued
    });
    let issued: u32 = join_all(callers).await.into_iter().sum();
    assert_eq!(issued, 100);
    assert_eq!(app.imgwire.created(), 100);
    assert_eq!(remaining(&app).await, 0);
}

#[actix_web::test]
async fn an_exhausted_quota_reports_when_the_next_window_begins() {
    let app = with_quota(1).start().await;
    app.clock.set("2026-03-01T23:00:00Z".parse().unwrap());
    app.ask_as(&Token::of("user_1").with("exp", json!(4_000_000_000_u64)))
        .await
        .assert_token();
    let answer = app
        .ask_as(&Token::of("user_1").with("exp", json!(4_000_000_000_u64)))
        .await;
    answer.assert_error(429, "quota_exhausted");
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((3590..=3600).contains(&seconds), "{seconds}");
    assert!(answer.header("ratelimit").starts_with("\"limit\";r=0;t=3"));
    app.clock.advance(Duration::from_secs(3601));
    app.ask_as(&Token::of("user_1").with("exp", json!(4_000_000_000_u64)))
        .await
        .assert_token();
}

#[actix_web::test]
async fn setting_the_clock_back_does_not_reopen_a_window() {
    let app = with_quota(2).start().await;
    let token = Token::of("user_1").with("exp", json!(4_000_000_000_u64));
    app.clock.set("2026-03-02T12:00:00Z".parse().unwrap());
    app.ask_as(&token).await.assert_token();
    app.ask_as(&token).await.assert_token();
    for earlier in [
        "2026-03-02T01:00:00Z",
        "2026-03-01T12:00:00Z",
        "2025-03-01T12:00:00Z",
    ] {
        app.clock.set(earlier.parse().unwrap());
        app.ask_as(&token)
            .await
            .assert_error(429, "quota_exhausted");
    }
    app.clock.set("2026-03-03T00:00:01Z".parse().unwrap());
    app.ask_as(&token).await.assert_token();
}

#[actix_web::test]
async fn windows_follow_the_time_zone() {
    let app = with_quota(1)
        .set("policies.limit.timezone", "Europe/Berlin")
        .start()
        .await;
    let token = Token::of("user_1").with("exp", json!(4_000_000_000_u64));
    app.clock.set("2026-06-01T21:59:00Z".parse().unwrap());
    app.ask_as(&token).await.assert_token();
    app.ask_as(&token)
        .await
        .assert_error(429, "quota_exhausted");
    app.clock.set("2026-06-01T22:00:01Z".parse().unwrap());
    app.ask_as(&token).await.assert_token();
}

#[actix_web::test]
async fn a_failed_creation_releases_its_unit() {
    let app = with_quota(1).imgwire("retries", 0).start().await;
    let failures = [
        Misbehaviour::Status(500, None),
        Misbehaviour::Status(422, None),
        Misbehaviour::Body("?".into()),
    ];
    app.imgwire.misbehave_next(failures);
    for _ in 0..3 {
        app.ask_as(&Token::of("user_1"))
            .await
            .assert_error(500, "imgwire_failed");
        assert_eq!(remaining(&app).await, 1);
    }
    app.ask_as(&Token::of("user_1")).await.assert_token();
    app.ask_as(&Token::of("user_1"))
        .await
        .assert_error(429, "quota_exhausted");
}

#[actix_web::test]
async fn a_limit_may_depend_on_a_claim() {
    let by_plan = json!({ "claim": "plan", "values": { "free": 1, "pro": 2 }, "default": 0 });
    let app = with_quota(0)
        .set("policies.limit.limit", by_plan)
        .start()
        .await;
    let of = |plan: &str, workspace: &str| {
        Token::of("user_1")
            .with("plan", json!(plan))
            .with("workspaces", json!([workspace]))
    };
    app.ask_as(&of("free", "ws_1")).await.assert_token();
    app.ask_as(&of("free", "ws_1"))
        .await
        .assert_error(429, "quota_exhausted");
    app.ask_as(&of("pro", "ws_1")).await.assert_token();
    app.ask_as(&of("pro", "ws_1"))
        .await
        .assert_error(429, "quota_exhausted");
    app.ask_as(&of("none", "ws_2"))
        .await
        .assert_error(429, "quota_exhausted");
    app.ask_as(&Token::of("user_1"))
        .await
        .assert_error(429, "quota_exhausted");
    let odd = Token::of("user_1").with("plan", json!(["pro"]));
    app.ask_as(&odd).await.assert_error(429, "quota_exhausted");
}

#[actix_web::test]
async fn a_limit_may_depend_on_a_nested_claim() {
    let values = json!({ "free": 0, "pro": 1 });
    let by_plan = json!({ "claim": "/app_metadata/plan", "values": values, "default": 0 });
    let app = with_quota(0)
        .set("policies.limit.limit", by_plan)
        .start()
        .await;
    let of = |metadata: serde_json::Value| Token::of("user_1").with("app_metadata", metadata);
    for odd in [
        json!({ "plan": "free" }),
        json!("pro"),
        json!(["pro"]),
        json!({}),
    ] {
        app.ask_as(&of(odd))
            .await
            .assert_error(429, "quota_exhausted");
    }
    app.ask_as(&of(json!({ "plan": "pro" })))
        .await
        .assert_token();
}

#[actix_web::test]
async fn counters_survive_a_restart_with_a_new_limit() {
    let app = with_quota(3).start().await;
    app.ask_as(&Token::of("user_1")).await.assert_token();
    app.ask_as(&Token::of("user_1")).await.assert_token();
    let mut app = app;
    app.begin_stop();
    let folder = app.stopped().await;
    let app = with_quota(5).start_in(folder).await;
    assert_eq!(remaining(&app).await, 3);
}

/// A request in each dimension of a limit.
#[derive(Clone, Copy)]
struct Attempt {
    user: &'static str,
    workspace: &'static str,
    purpose: &'static str,
    ip: &'static str,
    route: &'static str,
}

#[actix_web::test]
async fn each_dimension_of_a_limit_has_its_own_counters() {
    const OTHER_ROUTE: &str = "/api/imgwire/other-token";
    let one = Attempt {
        user: "user_1",
        workspace: "ws_1",
        purpose: "avatar",
        ip: "192.0.2.1",
        route: ROUTE,
    };
    let others = [
        (
            "user",
            Attempt {
                user: "user_2",
                ..one
            },
        ),
        (
            "workspace",
            Attempt {
                workspace: "ws_2",
                ..one
            },
        ),
        (
            "purpose",
            Attempt {
                purpose: "banner",
                ..one
            },
        ),
        (
            "ip",
            Attempt {
                ip: "192.0.2.2",
                ..one
            },
        ),
        (
            "route",
            Attempt {
                route: OTHER_ROUTE,
                ..one
            },
        ),
    ];
    let builder = |per: &[&str]| {
        let chain = ["signed-in", "member", "purposes", "limit"];
        Gate::standard()
            .server("trusted_proxies", ["127.0.0.1"])
            .policy("purposes", upload_intent().purposes(["avatar", "banner"]))
            .policy("limit", rate_limit().per(per).limit(1))
            .chain(chain)
            .route(OTHER_ROUTE, chain)
    };
    let send = async |app: &TestApp, attempt: Attempt| {
        let token = Token::of(attempt.user).with("workspaces", json!(["ws_1", "ws_2"]));
        let request = app
            .request(Method::POST, attempt.route)
            .bearer(&token.sign());
        let request = request.header("x-forwarded-for", attempt.ip);
        let body = json!({ "workspace": attempt.workspace, "purpose": attempt.purpose });
        request.json(&body).await
    };
    for (dimension, other) in others {
        // A limit per this dimension, a limit per every dimension, a limit per every other one, and a global limit.
        let all = others.map(|(name, _)| name);
        let rest: Vec<_> = all.into_iter().filter(|name| *name != dimension).collect();
        for (per, is_apart) in [
            (&[dimension][..], true),
            (&all, true),
            (&rest, false),
            (&[], false),
        ] {
            let app = builder(per).start().await;
            send(&app, one).await.assert_token();
            send(&app, one).await.assert_error(429, "rate_limited");
            let answer = send(&app, other).await;
            assert_eq!(
                answer.status,
                if is_apart { 200 } else { 429 },
                "{dimension} of {per:?}"
            );
        }
    }
}

#[actix_web::test]
async fn attempts_of_a_rate_limit_return_one_by_one() {
    let limit = rate_limit().per(["user"]).limit(60).period("1m").burst(2);
    let app = with_limit(limit).start().await;
    let token = Token::of("user_1");
    app.ask_as(&token).await.assert_token();
    app.ask_as(&token).await.assert_token();
    let answer = app.ask_as(&token).await;
    answer.assert_error(429, "rate_limited");
    assert_eq!(answer.header("retry-after"), "1");
    app.clock.advance(Duration::from_secs(1));
    app.ask_as(&token).await.assert_token();
    app.ask_as(&token).await.assert_error(429, "rate_limited");
}

#[actix_web::test]
async fn an_attempt_counts_even_if_the_request_fails_later() {
    let app = with_rate_limit(2).imgwire("retries", 0).start().await;
    app.imgwire
        .misbehave_next([Misbehaviour::Status(500, None)]);
    app.ask_as(&Token::of("user_1"))
        .await
        .assert_error(500, "imgwire_failed");
    app.ask_as(&Token::of("user_1")).await.assert_token();
    app.ask_as(&Token::of("user_1"))
        .await
        .assert_error(429, "rate_limited");
}

#[actix_web::test]
async fn setting_the_clock_does_not_affect_a_rate_limit() {
    let app = with_rate_limit(1).start().await;
    let token = Token::of("user_1").with("exp", json!(4_000_000_000_u64));
    app.ask_as(&token).await.assert_token();
    app.clock.set("2020-01-01T00:00:00Z".parse().unwrap());
    app.ask_as(&token).await.assert_error(429, "rate_limited");
    app.clock.set("2040-01-01T00:00:00Z".parse().unwrap());
    let token = Token::of("user_1").with("exp", json!(9_000_000_000_u64));
    app.ask_as(&token).await.assert_error(429, "rate_limited");
}
