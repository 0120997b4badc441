//! The emulator of Imgwire: CORS origins, billing, the clock, and failures.

use std::time::Duration;

use actix_web::http::Method;
use serde_json::json;

use crate::{
    emulator::{Imgwire, ORIGINS, OTHER_ENVIRONMENT, TOKEN, file, refused},
    helpers::{
        Billing, CLIENT_KEY, CorsOrigin, ENVIRONMENT, Endpoint, ErrorType, Misbehaviour,
        SERVER_API_KEY,
    },
};

#[actix_web::test]
async fn cors_origins_restrict_the_pages_that_upload_with_a_client_key() {
    let imgwire = Imgwire::with(|scenario| scenario.client_keys[0].allow_unsigned_upload = true);
    let upload = async |key: &str, origin: &str| {
        let request = imgwire.upload(key, None).header("origin", origin);
        request.json(&file()).await
    };
    // Without origins, every page may.
    assert_eq!(upload(CLIENT_KEY, "https://evil.example").await.status, 200);
    imgwire.emulator.change(|scenario| {
        let patterns = ["app.example.com", "*.example.org", "localhost:3000"];
        scenario.cors_origins = patterns.map(CorsOrigin::new).to_vec();
        // Those of other environments do not matter.
        scenario.cors_origins.push(CorsOrigin {
            environment: OTHER_ENVIRONMENT.to_owned(),
            pattern: "evil.example".to_owned(),
        });
    });
    for (origin, is_allowed) in [
        ("https://app.example.com", true),
        ("https://www.example.org", true),
        ("http://localhost:3000", true),
        ("http://localhost:3001", false),
        ("https://example.org", false),
        ("https://evil.example", false),
        ("null", false),
    ] {
        let answer = upload(CLIENT_KEY, origin).await;
        if is_allowed {
            assert_eq!(answer.status, 200, "{origin}");
        } else {
            refused(&answer, 403, "OperationNotAllowedError");
        }
        // Pages of this machine can read the answer, whatever it is. Others cannot, because the keys are well known.
        let is_local = origin.contains("localhost");
        let readable = if is_local { origin } else { "" };
        assert_eq!(answer.header("access-control-allow-origin"), readable);
        assert_eq!(upload(SERVER_API_KEY, origin).await.status, 200);
    }
    let without = async || imgwire.upload(CLIENT_KEY, None).json(&file()).await;
    assert_eq!(without().await.status, 200);
    imgwire
        .emulator
        .change(|scenario| scenario.undocumented.origin_required = true);
    refused(&without().await, 403, "OperationNotAllowedError");

    let list = imgwire
        .request(Method::GET, ORIGINS, SERVER_API_KEY)
        .send()
        .await;
    assert_eq!(list.header("x-total-count"), "3");
    assert_eq!(list.json[1]["pattern"], "*.example.org");
    assert_eq!(list.json[1]["environment_id"], ENVIRONMENT);
}

#[actix_web::test]
async fn the_state_of_the_plan_refuses_tokens_and_uploads() {
    let imgwire = Imgwire::start();
    let upload = imgwire.created(file()).await;
    let token = imgwire.token().await;
    let ask = async || {
        imgwire
            .request(Method::POST, TOKEN, SERVER_API_KEY)
            .send()
            .await
    };
    let start = async || imgwire.upload(CLIENT_KEY, Some(&token)).json(&file()).await;
    for billing in [
        Billing::Unpaid,
        Billing::StorageUsedUp,
        Billing::UploadsUsedUp,
    ] {
        imgwire
            .emulator
            .change(|scenario| scenario.billing = billing);
        refused(&ask().await, 402, "PaymentRequiredError");
        refused(&start().await, 402, "PaymentRequiredError");
        // What is there can be read.
        assert_eq!(imgwire.image(&upload).await.status, 200);
    }
    imgwire.emulator.change(|scenario| {
        scenario.undocumented.tokens_check_capacity = false;
        scenario.undocumented.payment_required_status = 403;
    });
    assert_eq!(ask().await.status, 200);
    refused(&start().await, 403, "PaymentRequiredError");
    imgwire
        .emulator
        .change(|scenario| scenario.billing = Billing::Unpaid);
    refused(&ask().await, 403, "PaymentRequiredError");
    // A refused upload consumes no token.
    imgwire
        .emulator
        .change(|scenario| scenario.billing = Billing::Active);
    assert_eq!(start().await.status, 200);
}

#[actix_web::test]
async fn the_date_header_can_be_skewed() {
    let imgwire = Imgwire::start();
    imgwire.clock.set("2030-01-02T03:04:05Z".parse().unwrap());
    let date = async || imgwire.list("").await.header("date").to_owned();
    assert!(date().await.starts_with("Wed, 02 Jan 2030 03:04:"));
    imgwire
        .emulator
        .change(|scenario| scenario.date_skew_seconds = -600);
    assert!(date().await.starts_with("Wed, 02 Jan 2030 02:54:"));
}

#[actix_web::test]
async fn each_endpoint_can_misbehave_and_counts_its_requests() {
    let imgwire = Imgwire::start();
    let page = "<html>maintenance</html>";
    let body = Misbehaviour::Body(page.to_owned());
    imgwire.emulator.misbehave_at(Endpoint::Images, Some(body));
    assert_eq!(imgwire.list("").await.text, page);
    let refusal = Misbehaviour::Refuse(ErrorType::PaymentRequired);
    imgwire
        .emulator
        .misbehave_at(Endpoint::Images, Some(refusal));
    refused(&imgwire.list("").await, 402, "PaymentRequiredError");
    imgwire.emulator.misbehave_at(Endpoint::Images, None);
    assert_eq!(imgwire.list("").await.status, 200);
    let trickle = Misbehaviour::Trickle(Duration::from_millis(1));
    imgwire
        .emulator
        .misbehave_at(Endpoint::Upload, Some(trickle));
    imgwire.created(file()).await;
    assert_eq!(imgwire.emulator.asked_at(Endpoint::Images), 3);
    assert_eq!(imgwire.emulator.asked_at(Endpoint::Upload), 1);
    assert_eq!(imgwire.emulator.asked(), 0);
}

#[actix_web::test]
async fn the_scenario_can_be_switched_over_http_but_not_by_pages() {
    let imgwire = Imgwire::start();
    let control = |method| imgwire.request(method, "/emulator", "");
    let before = control(Method::GET).send().await.json;
    assert_eq!(before["billing"], "active");
    let patch = json!({ "billing": "unpaid", "undocumented": { "payment_required_status": 403 } });
    let after = control(Method::PATCH).json(&patch).await;
    assert_eq!(after.json["billing"], "unpaid");
    assert_eq!(after.json["undocumented"]["put_enforces_type"], false);
    let answer = imgwire
        .request(Method::POST, TOKEN, SERVER_API_KEY)
        .send()
        .await;
    refused(&answer, 403, "PaymentRequiredError");
    // What is wrong changes nothing.
    for patch in [
        json!({ "biling": "active" }),
        json!({ "billing": "free" }),
        json!(1),
    ] {
        assert_eq!(
            control(Method::PATCH).json(&patch).await.status,
            400,
            "{patch}"
        );
    }
    let back = json!({ "billing": "active" });
    let page = control(Method::PATCH).header("origin", "http://localhost:3000");
    assert_eq!(page.json(&back).await.status, 403);
    let rebound = control(Method::PATCH).instead("host", "evil.example");
    assert_eq!(rebound.json(&back).await.status, 403);
    assert_eq!(control(Method::GET).send().await.json, after.json);
}
