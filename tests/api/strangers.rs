//! Limits per workspace for users who are not members.

use serde_json::json;

use crate::{
    helpers::{Entry, Gate, Token, quota, rate_limit, workspace_member},
    limits::remaining,
};

/// A gate with a limit of two per workspace, behind a membership that lets strangers through.
fn with_lenient_membership(member: Entry, limit: Entry) -> Gate {
    Gate::accepting(["app"])
        .policy("member", member)
        .policy("limit", limit.per(["workspace"]).limit(2))
        .chain(["signed-in", "member", "limit"])
}

/// Memberships that let strangers through, with a name for each.
fn lenient() -> [(&'static str, Entry); 5] {
    let by_claim = || workspace_member().claim("workspaces");
    let members = json!({ "ws_1": { "user_1": "owner" } });
    // Nothing listens there.
    let unreachable = "http://127.0.0.1:9/{workspace}/{user}";
    [
        ("an observed claim", by_claim().observe()),
        ("an observed role", by_claim().roles(["owner"]).observe()),
        (
            "an observed list",
            workspace_member().members(members).observe(),
        ),
        (
            "a tolerated failure",
            workspace_member().url(unreachable).on_failure("allow"),
        ),
        (
            "a skipped policy",
            by_claim().when("subject.id == 'user_1'"),
        ),
    ]
}

#[actix_web::test]
async fn a_stranger_cannot_consume_the_quota_of_a_workspace() {
    for (member, policy) in lenient() {
        let app = with_lenient_membership(policy, quota()).start().await;
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
            // Another workspace in the header does not help.
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
async fn a_stranger_cannot_consume_the_rate_limit_of_a_workspace() {
    // In the first and the third, the user is a member.
    let [claim, _, list, ..] = lenient();
    for (member, policy) in [claim, list] {
        let app = with_lenient_membership(policy, rate_limit()).start().await;
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
async fn anonymous_requests_count_per_address() {
    let [(_, member), ..] = lenient();
    let gate = with_lenient_membership(member, quota());
    let app = gate.set("policies.signed-in.mode", "observe").start().await;
    for status in [200, 200, 429] {
        let answer = app.ask().json(&json!({ "workspace": "ws_1" })).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    let used = app.manage("/quota/limit?key=%25ip:127.0.0.1").await;
    assert_eq!(used.json["used"], 2);
    assert_eq!(app.manage("/quota/limit?key=ws_1").await.json["used"], 0);
}
