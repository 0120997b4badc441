//! `/livez`, `/readyz`, `/metrics` and `/openapi.json`.

use actix_web::{HttpResponse, http::header, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::Management;
use crate::{
    gate::readiness,
    http::{Gate, openapi},
    imgwire::{BreakerState, Refusal},
};

/// The readiness of the gate.
#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    status: ReadinessStatus,
    /// The parts without which the gate cannot serve the requests of some route, for example `stores.main`, or
    /// `draining`. The gate is not ready while there is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failing: Vec<String>,
    /// The parts that are down or limited while requests are served, for example a store whose policies all have an
    /// `on_failure`, an issuer whose keys cannot be refreshed, or `imgwire`, with the reason if Imgwire refuses
    /// requests. The gate is still ready.
    degraded: Vec<String>,
}

/// Whether the gate can serve requests.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ReadinessStatus {
    Ready,
    Failing,
}

/// Returns 200 while the process responds.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "management",
    operation_id = "show_liveness",

    responses((status = 200, description = "The process responds"))
)]
pub(crate) async fn live() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({ "live": true }))
}

/// Returns whether the gate is ready, and which parts are not.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "management",
    operation_id = "show_readiness",

    responses(
        (status = 200, description = "The gate is ready", body = Readiness),
        (status = 503, description = "The gate is not ready", body = Readiness))
)]
pub(crate) async fn ready(management: web::Data<Management>) -> HttpResponse {
    let rules = management.gate.rules.load();
    let readiness::Readiness {
        mut failing,
        mut degraded,
    } = rules.readiness();
    let upstream = &management.gate.upstream;
    if let Some(refusal) = upstream.refusals.current() {
        degraded.push(format!("imgwire: {refusal}"));
    }
    if upstream.breaker.state() != BreakerState::Closed {
        degraded.push("imgwire".to_owned());
    }
    if management.gate.in_flight.is_draining() {
        failing.push("draining".to_owned());
    }
    let (mut response, status) = if failing.is_empty() {
        (HttpResponse::Ok(), ReadinessStatus::Ready)
    } else {
        (HttpResponse::ServiceUnavailable(), ReadinessStatus::Failing)
    };
    response.json(Readiness {
        status,
        failing,
        degraded,
    })
}

/// Returns the metrics for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "management",
    operation_id = "show_metrics",

    responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"))
)]
pub(crate) async fn metrics(management: web::Data<Management>) -> HttpResponse {
    const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let gate = &management.gate;
    measure(gate);
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, TEXT))
        .body(gate.metrics.encode())
}

/// Updates the metrics that describe the current state. The listener has one worker, so no other scrape sees a part of
/// them.
fn measure(gate: &Gate) {
    let metrics = &gate.metrics;
    metrics.forget_parts();
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let rules = gate.rules.load();
    for (name, set) in rules.identities.keys() {
        let is_stale = i64::from(set.failure.is_some());
        metrics.identity_keys(name.clone()).set(count(set.keys));
        metrics.identity_keys_stale(name.clone()).set(is_stale);
    }
    for store in rules.stores.iter().filter(|store| store.is_used()) {
        let is_up = store.is_healthy();
        metrics.store_up(store.name.clone()).set(is_up.into());
        let may_evict = store.degraded().is_some();
        metrics
            .store_may_evict(store.name.clone())
            .set(may_evict.into());
    }
    let breaker = gate.upstream.breaker.state();
    metrics.breaker_state().set(breaker as i64);
    let refusal = gate.upstream.refusals.current();
    for reason in Refusal::ALL {
        let is_current = i64::from(refusal == Some(reason));
        metrics.imgwire_refusing(reason.name()).set(is_current);
    }
    let pool = gate.upstream.pool.as_ref();
    let (tokens, making) = pool.map_or((0, 0), |pool| (pool.tokens(), pool.making()));
    metrics.pool_tokens().set(count(tokens));
    metrics.pool_making().set(count(making));
    metrics.in_flight().set(gate.in_flight.running().into());
}

/// The OpenAPI document of this gate, with its current routes.
pub(super) async fn document(management: web::Data<Management>) -> HttpResponse {
    let rules = management.gate.rules.load();
    let routes = rules.routes.iter();
    let routes = routes.map(|route| (route.path.as_str(), route.paths.action()));
    HttpResponse::Ok().json(openapi::document(routes))
}
