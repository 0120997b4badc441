//! Rate limits and quotas, as requests meet them.

use std::time::Duration;

use futures_util::future::join_all;
use imgwire_gate::sandbox::emulator::Misbehaviour;
use serde_json::json;

use crate::helpers::{Recipe, TestApp, Token};

/// A chain of one limit behind `signed_in` and `workspace_member`.
fn with_limit(policy: &str) -> Recipe {
    let before = Recipe::default().policies;
    let before = before.split("[policies.burst]").next().unwrap().to_owned();
    Recipe {
        policies: format!("{before}[policies.limit]\n{policy}"),
        chain: r#"["signed-in", "member", "limit"]"#.into(),
        ..Recipe::default()
    }
}

fn quota(limit: &str, more: &str) -> Recipe {
    with_limit(&format!(
        "kind = \"quota\"\nper = [\"workspace\"]\nlimit = {limit}\nwindow = \"day\"\nstore = \"main\"\n{more}"
    ))
}

async fn remaining(app: &TestApp) -> u64 {
    let path = format!("{}/allowance", crate::helpers::ROUTE);
    let request = app.request(actix_web::http::Method::GET, &path);
    let answer = request.bearer(&Token::of("user_1").sign()).send().await;
    answer.json["limits"][0]["remaining"].as_u64().unwrap()
}

#[actix_web::test]
async fn sixty_four_callers_at_once_get_exactly_the_hundred_tokens_that_there_are() {
    let app = quota("100", "").start().await;
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
async fn an_exhausted_quota_says_when_the_next_window_begins() {
    let app = quota("1", "").start().await;
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
async fn a_clock_that_is_set_back_opens_no_window_anew() {
    let app = quota("2", "").start().await;
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
    let app = quota("1", "timezone = \"Europe/Berlin\"").start().await;
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
async fn a_creation_that_fails_gives_its_unit_back() {
    let recipe = quota("1", "");
    let app = Recipe {
        imgwire: "retries = 0".into(),
        ..recipe
    }
    .start()
    .await;
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
    let recipe = quota(
        "{ claim = \"plan\", values = { free = 1, pro = 2 }, default = 0 }",
        "",
    );
    let app = recipe.start().await;
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
async fn a_limit_may_depend_on_a_claim_within_another() {
    let recipe = quota(
        "{ claim = \"/app_metadata/plan\", values = { free = 0, pro = 1 }, default = 0 }",
        "",
    );
    let app = recipe.start().await;
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
async fn counters_survive_a_restart_and_a_new_limit() {
    let app = quota("3", "").start().await;
    app.ask_as(&Token::of("user_1")).await.assert_token();
    app.ask_as(&Token::of("user_1")).await.assert_token();
    let mut app = app;
    app.begin_stop();
    let folder = app.stopped().await;
    let app = TestApp::start_in(quota("5", ""), folder).await;
    assert_eq!(remaining(&app).await, 3);
}

#[actix_web::test]
async fn each_combination_of_what_a_limit_is_per_has_a_counter_of_its_own() {
    let alike = |per: &str| {
        let recipe = with_limit(&format!(
            "kind = \"rate_limit\"\nper = {per}\nlimit = 1\nperiod = \"1h\"\n"
        ));
        let purposes =
            "[policies.purposes]\nkind = \"upload_intent\"\npurposes = [\"avatar\", \"banner\"]";
        Recipe {
            policies: format!("{}{purposes}", recipe.policies),
            chain: r#"["signed-in", "member", "purposes", "limit"]"#.into(),
            ..recipe
        }
    };
    let one = (Token::of("user_1"), "ws_1", "avatar");
    let others = [
        ("\"user\"", (Token::of("user_2"), "ws_1", "avatar")),
        (
            "\"workspace\"",
            (
                Token::of("user_1").with("workspaces", json!(["ws_2"])),
                "ws_2",
                "avatar",
            ),
        ),
        ("\"purpose\"", (Token::of("user_1"), "ws_1", "banner")),
    ];
    for (dimension, other) in others {
        for (per, is_apart) in [
            (format!("[{dimension}, \"ip\", \"route\"]"), true),
            ("[]".into(), false),
        ] {
            let app = alike(&per).start().await;
            let send = async |(token, workspace, purpose): &(Token, &str, &str)| {
                let body = json!({ "workspace": workspace, "purpose": purpose });
                app.ask().bearer(&token.sign()).json(&body).await
            };
            send(&one).await.assert_token();
            send(&one).await.assert_error(429, "rate_limited");
            match is_apart {
                true => send(&other).await.assert_token(),
                false => send(&other).await.assert_error(429, "rate_limited"),
            }
        }
    }
}

/// A chain in which a stranger passes `workspace_member` in this way, with a limit of two for each workspace.
fn with_lenient_membership(member: &str, limit: &str) -> Recipe {
    Recipe {
        policies: format!(
            r#"
            [policies.signed-in]
            kind = "signed_in"
            accept = ["app"]
            [policies.member]
            kind = "workspace_member"
            {member}
            [policies.limit]
            per = ["workspace"]
            limit = 2
            {limit}
            "#
        ),
        chain: r#"["signed-in", "member", "limit"]"#.into(),
        ..Recipe::default()
    }
}

const LENIENT: [&str; 5] = [
    "claim = \"workspaces\"\nmode = \"observe\"",
    "claim = \"workspaces\"\nroles = [\"owner\"]\nmode = \"observe\"",
    "members = { ws_1 = { user_1 = \"owner\" } }\nmode = \"observe\"",
    // Nothing listens there.
    "url = \"http://127.0.0.1:9/{workspace}/{user}\"\non_failure = \"allow\"",
    "claim = \"workspaces\"\nwhen = \"subject.id == 'user_1'\"",
];

#[actix_web::test]
async fn a_stranger_uses_up_no_quota_of_a_workspace_that_it_names() {
    for member in LENIENT {
        let limit = "kind = \"quota\"\nwindow = \"day\"\nstore = \"main\"";
        let app = with_lenient_membership(member, limit).start().await;
        let used = async |key: &str| {
            let path = format!("/quota/limit?key={key}");
            app.manage(&path).await.json["used"].as_u64().unwrap()
        };
        for user in ["stranger_1", "stranger_2"] {
            let token = Token::of(user).without("workspaces").sign();
            for status in [200, 200, 429] {
                let body = json!({ "workspace": "ws_1" });
                let answer = app.ask().bearer(&token).json(&body).await;
                assert_eq!(answer.status, status, "{member}: {answer:?}");
            }
            // Naming another workspace is no way around it.
            let elsewhere = app.ask().bearer(&token).header("x-workspace-id", "ws_2");
            elsewhere.send().await.assert_error(429, "quota_exhausted");
        }
        assert_eq!((used("ws_1").await, used("ws_2").await), (0, 0), "{member}");
        assert_eq!(used("%25user:stranger_1").await, 2, "{member}");
        let path = "/quota/limit?key=%25user:stranger_1";
        let given = app.request_management(actix_web::http::Method::DELETE, path);
        assert_eq!(given.send().await.status, 204);
        let token = Token::of("stranger_1").without("workspaces").sign();
        let body = json!({ "workspace": "ws_1" });
        app.ask().bearer(&token).json(&body).await.assert_token();
    }
}

#[actix_web::test]
async fn a_stranger_uses_up_no_rate_limit_of_a_workspace_that_it_names() {
    // The first two in which a member is found.
    for member in [LENIENT[0], LENIENT[2]] {
        let limit = "kind = \"rate_limit\"\nperiod = \"1h\"";
        let app = with_lenient_membership(member, limit).start().await;
        let stranger = Token::of("stranger").without("workspaces").sign();
        let before = remaining(&app).await;
        let body = json!({ "workspace": "ws_1" });
        for status in [200, 200, 429] {
            let answer = app.ask().bearer(&stranger).json(&body).await;
            assert_eq!(answer.status, status, "{member}: {answer:?}");
        }
        assert_eq!(remaining(&app).await, before, "{member}");
        for status in [200, 200, 429] {
            let answer = app.ask_as(&Token::of("user_1")).await;
            assert_eq!(answer.status, status, "{member}: {answer:?}");
        }
    }
}

#[actix_web::test]
async fn who_is_not_signed_in_counts_under_the_address() {
    let limit = "kind = \"quota\"\nwindow = \"day\"\nstore = \"main\"";
    let recipe = with_lenient_membership(LENIENT[0], limit);
    let policies = recipe.policies.replace(
        "accept = [\"app\"]",
        "accept = [\"app\"]\nmode = \"observe\"",
    );
    let app = Recipe { policies, ..recipe }.start().await;
    for status in [200, 200, 429] {
        let answer = app.ask().json(&json!({ "workspace": "ws_1" })).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    let used = app.manage("/quota/limit?key=%25ip:127.0.0.1").await;
    assert_eq!(used.json["used"], 2);
    assert_eq!(app.manage("/quota/limit?key=ws_1").await.json["used"], 0);
}

#[actix_web::test]
async fn attempts_come_back_one_by_one() {
    let policy =
        "kind = \"rate_limit\"\nper = [\"user\"]\nlimit = 60\nperiod = \"1m\"\nburst = 2\n";
    let app = with_limit(policy).start().await;
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
async fn an_attempt_counts_whatever_follows_it() {
    let policy = "kind = \"rate_limit\"\nper = [\"user\"]\nlimit = 2\nperiod = \"1h\"\n";
    let app = Recipe {
        imgwire: "retries = 0".into(),
        ..with_limit(policy)
    }
    .start()
    .await;
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
async fn a_time_of_day_that_jumps_back_does_not_touch_a_rate_limit() {
    let policy = "kind = \"rate_limit\"\nper = [\"user\"]\nlimit = 1\nperiod = \"1h\"\n";
    let app = with_limit(policy).start().await;
    let token = Token::of("user_1").with("exp", json!(4_000_000_000_u64));
    app.ask_as(&token).await.assert_token();
    app.clock.set("2020-01-01T00:00:00Z".parse().unwrap());
    app.ask_as(&token).await.assert_error(429, "rate_limited");
    app.clock.set("2040-01-01T00:00:00Z".parse().unwrap());
    let token = Token::of("user_1").with("exp", json!(9_000_000_000_u64));
    app.ask_as(&token).await.assert_error(429, "rate_limited");
}
