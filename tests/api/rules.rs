//! Rules of the app: upload intents, expressions and messages.

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::helpers::{
    Answer, Entry, Gate, ROUTE, TestApp, Token, expression, quota, rate_limit, upload_intent,
    workspace_member,
};

const AVATAR_ROUTE: &str = "/api/imgwire/avatar-token";

fn member() -> Entry {
    workspace_member().claim("workspaces")
}

async fn send(app: &TestApp, route: &str, body: &Value) -> Answer {
    let request = app.request(Method::POST, route);
    request.bearer(&Token::of("user_1").sign()).json(body).await
}

#[actix_web::test]
async fn a_declared_file_is_checked_by_purpose_type_and_size() {
    let avatars = upload_intent()
        .purposes(["avatar", "banner"])
        .mime_types(["image/png", "IMAGE/JPEG"])
        .max_size("5MB");
    let app = Gate::with_policies([("avatars", avatars)]).start().await;
    let file = |mime_type: Value, size: Value| json!({ "purpose": "avatar", "file": { "mimeType": mime_type, "size": size } });
    for (body, code) in [
        (file(json!("image/png"), json!(48_213)), ""),
        (file(json!("image/png"), json!(5_000_000)), ""),
        (file(json!("Image/PNG"), json!(1)), ""),
        (file(json!(" image/jpeg ; q=1"), json!(0)), ""),
        (file(json!("image/png"), json!(5_000_001)), "file_too_large"),
        (file(json!("image/png"), json!(u64::MAX)), "file_too_large"),
        (file(json!("image/gif"), json!(1)), "file_type_forbidden"),
        (file(json!("text/html"), json!(1)), "file_type_forbidden"),
        (file(json!(""), json!(1)), "file_type_forbidden"),
        (file(json!(null), json!(1)), "file_required"),
        (file(json!("image/png"), json!(null)), "file_required"),
        (json!({ "purpose": "avatar" }), "file_required"),
        (json!({ "purpose": "avatar", "file": {} }), "file_required"),
        (json!({ "purpose": "other" }), "purpose_forbidden"),
        (json!({}), "purpose_forbidden"),
    ] {
        let answer = send(&app, ROUTE, &body).await;
        assert_eq!(answer.code(), code, "{body}");
        assert_eq!(
            answer.status.as_u16(),
            if code.is_empty() { 200 } else { 403 }
        );
    }
    let empty = app.ask_as(&Token::of("user_1")).await;
    empty.assert_error(403, "purpose_forbidden");
}

/// The same with a second route for avatars, which has the policies of the usual one.
fn with_avatar_route(name: &str, policy: Entry) -> Gate {
    let policies = json!(["signed-in", name]);
    Gate::with_policies([(name, policy)]).route_with(json!({
        "path": AVATAR_ROUTE,
        "purpose": "avatar",
        "policies": policies,
    }))
}

#[actix_web::test]
async fn a_route_with_a_purpose_refuses_other_purposes() {
    let avatars = upload_intent().purposes(["avatar"]);
    let app = with_avatar_route("avatars", avatars).start().await;
    send(&app, AVATAR_ROUTE, &json!({})).await.assert_token();
    send(&app, AVATAR_ROUTE, &json!({ "purpose": "avatar" }))
        .await
        .assert_token();
    send(&app, AVATAR_ROUTE, &json!({ "purpose": "banner" }))
        .await
        .assert_error(403, "purpose_forbidden");
    send(&app, ROUTE, &json!({}))
        .await
        .assert_error(403, "purpose_forbidden");
    // An anonymous request is 401 before its purpose is checked.
    let anonymous = app.request(Method::POST, AVATAR_ROUTE);
    let answer = anonymous.json(&json!({ "purpose": "banner" })).await;
    answer.assert_error(401, "not_signed_in");
}

#[actix_web::test]
async fn routes_with_the_same_policy_share_its_counters() {
    for (policy, limit, code) in [
        (rate_limit().limit(3), 3, "rate_limited"),
        (quota().limit(2), 2, "quota_exhausted"),
    ] {
        let app = with_avatar_route("limit", policy.per(["user"]))
            .start()
            .await;
        for number in 0..limit {
            let route = if number % 2 == 0 { ROUTE } else { AVATAR_ROUTE };
            send(&app, route, &json!({})).await.assert_token();
        }
        send(&app, ROUTE, &json!({})).await.assert_error(429, code);
        send(&app, AVATAR_ROUTE, &json!({}))
            .await
            .assert_error(429, code);
    }
}

#[actix_web::test]
async fn an_expression_decides_by_claims_and_the_answer_has_only_its_code() {
    let paying = "subject.claims.plan in ['pro', 'team'] || workspace.role == 'owner'";
    let app = Gate::with_policies([("member", member()), ("paying", expression(paying))])
        .start()
        .await;
    let member = |plan: Value, role: &str| {
        Token::of("user_1")
            .with("plan", plan)
            .with("workspaces", json!([{ "id": "ws_1", "role": role }]))
    };
    app.ask_as(&member(json!("pro"), "viewer"))
        .await
        .assert_token();
    app.ask_as(&member(json!("free"), "owner"))
        .await
        .assert_token();
    app.ask_as(&member(json!("free"), "viewer"))
        .await
        .assert_error(403, "rule_forbidden");
    // Without the claim, the rest of the expression may decide; otherwise the rule denies.
    app.ask_as(&member(json!("pro"), "owner").without("plan"))
        .await
        .assert_token();
    app.ask_as(&member(json!("pro"), "viewer").without("plan"))
        .await
        .assert_error(403, "rule_forbidden");
}

fn decisions(outcome: &str, policy: &str, code: &str) -> String {
    format!(
        r#"imgwire_gate_decisions_total{{route="{ROUTE}",outcome="{outcome}",policy="{policy}",code="{code}"}}"#
    )
}

/// Expressions that are neither true nor false of the claims `{"groups": "staff", "plan": "pro", "age": "17"}`, and the
/// reason that the operator sees.
const WITHOUT_A_VALUE: [(&str, &str); 7] = [
    ("subject.claims.absent == 'x'", "there is no `absent`"),
    ("'admin' in subject.claims.groups", "cannot be evaluated"),
    (
        "subject.claims.groups.exists(group, group == 'staff')",
        "cannot be evaluated",
    ),
    ("subject.claims.age >= 17", "cannot be evaluated"),
    ("request.file.size < 1000", "there is no `file`"),
    ("subject.claims.plan", "its type is string"),
    ("workspace.role", "there is no `role`"),
];

#[actix_web::test]
async fn an_expression_that_cannot_be_evaluated_denies_with_a_reason() {
    for (allow, reason) in WITHOUT_A_VALUE {
        for (rule, status, outcome) in [
            (expression(allow), 403, "denied"),
            (expression(allow).observe(), 200, "would_deny"),
        ] {
            let app = Gate::with_policies([("rule", rule)]).start().await;
            let claims = json!({ "groups": "staff", "plan": "pro", "age": "17" });
            let token = claims.as_object().unwrap().iter();
            let token = token.fold(Token::of("user_1"), |token, (claim, value)| {
                token.with(claim, value.clone())
            });
            let answer = app.ask_as(&token).await;
            assert_eq!(answer.status, status, "{allow} {outcome}: {answer:?}");
            assert_eq!(
                app.metric(&decisions(outcome, "rule", "rule_forbidden"))
                    .await,
                1.0,
                "{allow}"
            );
            for fault in ["faulted", "fault_tolerated"] {
                assert_eq!(
                    app.metric(&decisions(fault, "rule", "internal")).await,
                    0.0,
                    "{allow}"
                );
            }
            let described = json!({ "subject": { "id": "user_1", "claims": claims } });
            let explained = app
                .request_management(Method::POST, "/explain")
                .json(&described)
                .await;
            let step = &explained.json["policies"][1];
            assert_eq!(step["verdict"], "deny", "{allow}: {explained:?}");
            assert!(
                step["reason"].as_str().unwrap().contains(reason),
                "{allow}: {step}"
            );
        }
    }
}

#[actix_web::test]
async fn an_expression_sees_the_requested_workspace() {
    let named = "has(request.workspace) && request.workspace == workspace.id";
    let app = Gate::with_policies([("member", member()), ("named", expression(named))])
        .start()
        .await;
    let token = Token::of("user_1").with("workspaces", json!(["ws_1"]));
    let named = app.ask().bearer(&token.sign());
    let named = named.json(&json!({ "workspace": "ws_1" })).await;
    named.assert_token();
    // The only workspace of a user is found without a request for it.
    app.ask_as(&token).await.assert_error(403, "rule_forbidden");
}

#[actix_web::test]
async fn a_suspended_user_is_refused() {
    let rule = "!has(subject.claims.suspended) || !subject.claims.suspended";
    let app = Gate::with_policies([("not-suspended", expression(rule))])
        .start()
        .await;
    app.ask_as(&Token::of("user_1")).await.assert_token();
    let suspended = Token::of("user_1").with("suspended", json!(true));
    app.ask_as(&suspended)
        .await
        .assert_error(403, "rule_forbidden");
    let allowed = Token::of("user_1").with("suspended", json!(false));
    app.ask_as(&allowed).await.assert_token();
}

#[actix_web::test]
async fn a_policy_is_skipped_only_if_its_condition_is_false() {
    let free_only = rate_limit()
        .per(["user"])
        .limit(1)
        .when("subject.claims.plan == 'free'");
    let app = Gate::with_policies([("free-only", free_only)])
        .start()
        .await;
    let limited = [
        Token::of("user_1").with("plan", json!("free")),
        // Without a value, the limit applies.
        Token::of("user_2"),
    ];
    for token in limited {
        app.ask_as(&token).await.assert_token();
        app.ask_as(&token).await.assert_error(429, "rate_limited");
    }
    let paying = Token::of("user_1").with("plan", json!("pro"));
    for _ in 0..3 {
        let answer = app.ask_as(&paying).await;
        answer.assert_token();
        assert_eq!(
            answer.header("ratelimit"),
            "",
            "a skipped limit is not reported"
        );
    }
}

#[actix_web::test]
async fn a_condition_without_a_value_evaluates_the_policy_and_explain_says_so() {
    for (when, reason) in WITHOUT_A_VALUE {
        let app = Gate::with_policies([("rule", expression("false").when(when))])
            .start()
            .await;
        let claims = json!({ "groups": "staff", "plan": "pro", "age": "17" });
        let described = json!({ "subject": { "id": "user_1", "claims": claims } });
        let explained = app
            .request_management(Method::POST, "/explain")
            .json(&described)
            .await;
        assert_eq!(
            explained.json["code"], "rule_forbidden",
            "{when}: {explained:?}"
        );
        let told = explained.json["policies"][1]["reason"].as_str().unwrap();
        assert!(
            told.starts_with("the expression is false; ") && told.contains(reason),
            "{told}"
        );
    }
}

#[actix_web::test]
async fn a_denial_may_have_a_message_in_the_language_of_the_user() {
    let message = json!({
        "en": "Uploads need the Pro plan.",
        "de": "Hochladen braucht den Tarif Pro.",
        "pt-BR": "Plano Pro.",
    });
    let paying = expression("subject.claims.plan == 'pro'").message(message);
    let app = Gate::with_policies([("paying", paying)]).start().await;
    let token = Token::of("user_1").with("plan", json!("free")).sign();
    for (accept, message) in [
        (None, "Uploads need the Pro plan."),
        (Some("de"), "Hochladen braucht den Tarif Pro."),
        (Some("de-AT, en;q=0.5"), "Hochladen braucht den Tarif Pro."),
        (
            Some("fr, DE;q=0.3, en;q=0.2"),
            "Hochladen braucht den Tarif Pro.",
        ),
        (Some("pt-br"), "Plano Pro."),
        (Some("fr"), "Uploads need the Pro plan."),
        (Some("*"), "Uploads need the Pro plan."),
        (Some("nonsense;;;q=x"), "Uploads need the Pro plan."),
    ] {
        let mut request = app.ask().bearer(&token);
        if let Some(accept) = accept {
            request = request.header("accept-language", accept);
        }
        let answer = request.send().await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (403, "rule_forbidden")
        );
        assert_eq!(answer.json["message"], message, "{accept:?}");
        assert!(answer.header("vary").contains("accept-language"));
    }
    // Denials of other policies have no message.
    app.ask().send().await.assert_error(401, "not_signed_in");
}
