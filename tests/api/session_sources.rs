//! Which credentials may start a session, and which sessions a route accepts.

use actix_web::http::Method;
use serde_json::json;

use crate::{
    helpers::{Answer, ROUTE, Recipe, SESSION, TestApp, Token},
    service::{Reply, Service},
};

const PARTNER_ROUTE: &str = "/api/imgwire/partner-token";

/// Two identities, each with sessions of its own, and a third whose credentials start none.
const IDENTITIES: &str = r#"
    [identities.partner]
    kind = "jwt"
    algorithms = ["HS256"]
    secret = { env = "TEST_SECRET" }
    audience = ["partner"]
    from = ["header:x-partner"]
    [identities.machine]
    kind = "jwt"
    algorithms = ["HS256"]
    secret = { env = "TEST_SECRET" }
    audience = ["machine"]
    from = ["header:x-machine"]
    [identities.partners]
    kind = "session"
    exchange = ["partner"]
"#;

const POLICIES: &str = r#"
    [policies.signed-in]
    kind = "signed_in"
    accept = ["app", "browser"]
    [policies.partner-signed-in]
    kind = "signed_in"
    accept = ["partner", "partners"]
"#;

fn recipe() -> Recipe {
    Recipe {
        more: IDENTITIES.into(),
        policies: POLICIES.into(),
        chain: r#"["signed-in"]"#.into(),
        routes: format!(
            "[[routes]]\npath = \"{PARTNER_ROUTE}\"\npolicies = [\"partner-signed-in\"]"
        ),
        ..Recipe::default()
    }
}

fn token_for(audience: &str) -> String {
    Token::of("user_1").with("aud", json!(audience)).sign()
}

async fn exchange(app: &TestApp, header: &str, token: &str) -> Answer {
    let request = app.request(Method::POST, SESSION).header(header, token);
    request.send().await
}

async fn session_of_app(app: &TestApp) -> String {
    let bearer = format!("Bearer {}", token_for("imgwire-gate"));
    let answer = exchange(app, "authorization", &bearer).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    answer.cookie().to_owned()
}

async fn with_cookie(app: &TestApp, method: Method, path: &str, cookie: &str) -> Answer {
    let request = app.request(method, path).header("cookie", cookie);
    request.send().await
}

#[actix_web::test]
async fn a_credential_that_no_exchange_names_starts_no_session() {
    let app = recipe().start().await;
    let refused = exchange(&app, "x-machine", &token_for("machine")).await;
    refused.assert_error(401, "not_signed_in");
    assert_eq!(refused.header("set-cookie"), "");
    // Beside one that is named it changes nothing.
    let answer = app
        .request(Method::POST, SESSION)
        .header("x-machine", &token_for("machine"))
        .header("x-partner", &token_for("partner"))
        .send()
        .await;
    assert_eq!(answer.status, 204, "{answer:?}");
}

#[actix_web::test]
async fn a_route_accepts_sessions_of_its_own_identities_only() {
    let app = recipe().start().await;
    let of_app = session_of_app(&app).await;
    let answer = exchange(&app, "x-partner", &token_for("partner")).await;
    let of_partner = answer.cookie();
    for (route, good, bad) in [
        (ROUTE, of_app.as_str(), of_partner),
        (PARTNER_ROUTE, of_partner, of_app.as_str()),
    ] {
        with_cookie(&app, Method::POST, route, good)
            .await
            .assert_token();
        with_cookie(&app, Method::POST, route, bad)
            .await
            .assert_error(401, "invalid_credentials");
    }
    // Both are sessions, so both are shown.
    for cookie in [of_app.as_str(), of_partner] {
        let shown = with_cookie(&app, Method::GET, SESSION, cookie).await;
        assert_eq!(shown.json["subject"], "user_1", "{shown:?}");
    }
}

#[actix_web::test]
async fn rules_see_the_identity_that_a_session_came_from_and_that_it_is_a_session() {
    let service = Service::start();
    service.answer("/may", Reply::status(200));
    let policies = format!(
        r#"
        [policies.signed-in]
        kind = "signed_in"
        accept = ["app", "browser"]
        [policies.by-session]
        kind = "expression"
        allow = "subject.identity == 'app' && subject.session == true"
        [policies.asked]
        kind = "remote"
        url = "{}/may"
        "#,
        service.url
    );
    let recipe = Recipe {
        policies,
        chain: r#"["signed-in", "asked", "by-session"]"#.into(),
        ..Recipe::default()
    };
    let app = recipe.start().await;
    let cookie = session_of_app(&app).await;
    with_cookie(&app, Method::POST, ROUTE, &cookie)
        .await
        .assert_token();
    let bearer = app.ask_as(&Token::of("user_1")).await;
    bearer.assert_error(403, "rule_forbidden");
    let told: Vec<_> = service
        .seen("/may")
        .iter()
        .map(|request| {
            let facts: serde_json::Value = serde_json::from_str(&request.body).unwrap();
            let subject = &facts["subject"];
            (subject["identity"].clone(), subject["session"].clone())
        })
        .collect();
    assert_eq!(
        told,
        [(json!("app"), json!(true)), (json!("app"), json!(false))]
    );
}

#[actix_web::test]
async fn a_remembered_decision_about_a_session_is_not_one_about_a_token() {
    let service = Service::start();
    service.answer("/may", Reply::status(200));
    let policies = format!(
        r#"
        [policies.signed-in]
        kind = "signed_in"
        accept = ["app", "browser"]
        [policies.asked]
        kind = "remote"
        url = "{}/may"
        cache = "1m"
        "#,
        service.url
    );
    let recipe = Recipe {
        policies,
        chain: r#"["signed-in", "asked"]"#.into(),
        ..Recipe::default()
    };
    let app = recipe.start().await;
    let cookie = session_of_app(&app).await;
    for _ in 0..2 {
        with_cookie(&app, Method::POST, ROUTE, &cookie)
            .await
            .assert_token();
    }
    service.answer("/may", Reply::status(403));
    let bearer = app.ask().bearer(&token_for("imgwire-gate")).send().await;
    bearer.assert_error(403, "rule_forbidden");
    assert_eq!(service.seen("/may").len(), 2);
}

#[actix_web::test]
async fn a_session_ends_when_a_reload_removes_the_identity_that_it_came_from() {
    let app = recipe().start().await;
    let answer = exchange(&app, "x-partner", &token_for("partner")).await;
    let cookie = answer.cookie();
    with_cookie(&app, Method::POST, PARTNER_ROUTE, cookie)
        .await
        .assert_token();

    // The partner is gone, and sessions are for machines now.
    let without = Recipe {
        more: IDENTITIES
            .replace("[identities.partner]", "[identities.newcomer]")
            .replace("exchange = [\"partner\"]", "exchange = [\"machine\"]"),
        policies: POLICIES.replace(r#"["partner", "partners"]"#, r#"["newcomer", "partners"]"#),
        ..recipe()
    };
    app.reload(&without).unwrap();
    for (method, path) in [(Method::POST, PARTNER_ROUTE), (Method::GET, SESSION)] {
        with_cookie(&app, method, path, cookie)
            .await
            .assert_error(401, "invalid_credentials");
    }
    // Its cookie can be taken away all the same.
    let ended = with_cookie(&app, Method::DELETE, SESSION, cookie).await;
    assert_eq!(ended.status, 204);
    assert!(ended.header("set-cookie").contains("Max-Age=0"));
}

#[actix_web::test]
async fn a_session_ends_when_a_reload_takes_its_identity_out_of_exchange() {
    let app = recipe().start().await;
    let cookie = session_of_app(&app).await;
    let without = Recipe {
        exchange: r#"["machine"]"#.into(),
        ..recipe()
    };
    app.reload(&without).unwrap();
    with_cookie(&app, Method::POST, ROUTE, &cookie)
        .await
        .assert_error(401, "invalid_credentials");
    // The identity itself goes on.
    app.ask_as(&Token::of("user_1")).await.assert_token();
    let bearer = format!("Bearer {}", token_for("imgwire-gate"));
    exchange(&app, "authorization", &bearer)
        .await
        .assert_error(401, "not_signed_in");
}
