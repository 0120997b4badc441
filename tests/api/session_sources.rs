//! Which credentials may start a session, and which sessions a route accepts.

use actix_web::http::Method;
use serde_json::json;

use crate::{
    helpers::{
        Answer, Entry, Gate, ROUTE, SESSION, TestApp, Token, expression, jwt, remote_decision,
        session, signed_in,
    },
    service::{Reply, Service},
};

const PARTNER_ROUTE: &str = "/api/imgwire/partner-token";

/// A JWT in the header `x-<name>` whose audience is the name.
fn own_jwt(name: &str) -> Entry {
    jwt().audience([name]).from([format!("header:x-{name}")])
}

/// Two identities, each with its own sessions, and a third whose credentials start none.
fn builder() -> Gate {
    Gate::accepting(["app", "browser"])
        .identity("partner", own_jwt("partner"))
        .identity("machine", own_jwt("machine"))
        .identity("partners", session(["partner"]))
        .policy("partner-signed-in", signed_in(["partner", "partners"]))
        .route(PARTNER_ROUTE, ["partner-signed-in"])
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
async fn a_credential_outside_every_exchange_starts_no_session() {
    let app = builder().start().await;
    let refused = exchange(&app, "x-machine", &token_for("machine")).await;
    refused.assert_error(401, "not_signed_in");
    assert_eq!(refused.header("set-cookie"), "");
    // Beside a credential of an exchange it is ignored.
    let answer = app
        .request(Method::POST, SESSION)
        .header("x-machine", &token_for("machine"))
        .header("x-partner", &token_for("partner"))
        .send()
        .await;
    assert_eq!(answer.status, 204, "{answer:?}");
}

#[actix_web::test]
async fn a_route_accepts_only_sessions_of_its_own_identities() {
    let app = builder().start().await;
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
    // Both sessions can be shown.
    for cookie in [of_app.as_str(), of_partner] {
        let shown = with_cookie(&app, Method::GET, SESSION, cookie).await;
        assert_eq!(shown.json["subject"], "user_1", "{shown:?}");
    }
}

#[actix_web::test]
async fn rules_see_the_identity_of_a_session_and_that_it_is_a_session() {
    let service = Service::start();
    service.answer("/may", Reply::status(200));
    let rule = "subject.identity == 'app' && subject.session == true";
    let app = Gate::accepting(["app", "browser"])
        .policy("asked", remote_decision(&format!("{}/may", service.url)))
        .policy("by-session", expression(rule))
        .chain(["signed-in", "asked", "by-session"])
        .start()
        .await;
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
async fn a_cached_decision_about_a_session_does_not_apply_to_a_token() {
    let service = Service::start();
    service.answer("/may", Reply::status(200));
    let asked = remote_decision(&format!("{}/may", service.url)).cache("1m");
    let app = Gate::accepting(["app", "browser"])
        .policy("asked", asked)
        .chain(["signed-in", "asked"])
        .start()
        .await;
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
async fn a_session_ends_when_a_reload_removes_its_identity() {
    let app = builder().start().await;
    let answer = exchange(&app, "x-partner", &token_for("partner")).await;
    let cookie = answer.cookie();
    with_cookie(&app, Method::POST, PARTNER_ROUTE, cookie)
        .await
        .assert_token();

    // The partner is gone, and machines start sessions instead.
    let without = builder()
        .without("identities.partner")
        .identity("newcomer", own_jwt("partner"))
        .identity("partners", session(["machine"]))
        .policy("partner-signed-in", signed_in(["newcomer", "partners"]));
    app.reload(&without).unwrap();
    for (method, path) in [(Method::POST, PARTNER_ROUTE), (Method::GET, SESSION)] {
        with_cookie(&app, method, path, cookie)
            .await
            .assert_error(401, "invalid_credentials");
    }
    // Signing out still removes the cookie.
    let ended = with_cookie(&app, Method::DELETE, SESSION, cookie).await;
    assert_eq!(ended.status, 204);
    assert!(ended.header("set-cookie").contains("Max-Age=0"));
}

#[actix_web::test]
async fn a_session_ends_when_a_reload_removes_its_identity_from_exchange() {
    let app = builder().start().await;
    let cookie = session_of_app(&app).await;
    app.reload(&builder().exchange(["machine"])).unwrap();
    with_cookie(&app, Method::POST, ROUTE, &cookie)
        .await
        .assert_error(401, "invalid_credentials");
    // Tokens of the identity are still accepted.
    app.ask_as(&Token::of("user_1")).await.assert_token();
    let bearer = format!("Bearer {}", token_for("imgwire-gate"));
    exchange(&app, "authorization", &bearer)
        .await
        .assert_error(401, "not_signed_in");
}
