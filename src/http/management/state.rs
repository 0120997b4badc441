//! The state of the gate: `/livez`, `/readyz` and `/metrics`; and its API, `/openapi.json`.

use actix_web::{HttpResponse, http::header, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::Management;
use crate::{http::openapi, imgwire::BreakerState};

/// Whether the gate is ready.
#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// Whether requests may come.
    ready: bool,
    /// The parts that are not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failing: Vec<String>,
    /// The parts that serve what they have, for nothing newer can be had, and those that others may stand in for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    degraded: Vec<String>,
}

/// Says that the process answers.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "management",
    operation_id = "show_liveness",

    responses((status = 200, description = "It lives"))
)]
pub(crate) async fn live() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({ "live": true }))
}

/// Says whether the gate is ready, and which parts are not.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "management",
    operation_id = "show_readiness",

    responses(
        (status = 200, description = "It is ready", body = Readiness),
        (status = 503, description = "It is not", body = Readiness))
)]
pub(crate) async fn ready(management: web::Data<Management>) -> HttpResponse {
    let rules = management.gate.rules.load();
    let mut failing: Vec<_> = rules
        .stores
        .iter()
        .filter(|store| !store.is_healthy())
        .map(|store| format!("stores.{}", store.name))
        .collect();
    let mut degraded = Vec::new();
    for (name, keys) in rules.identities.keys() {
        let part = format!("identities.{name}");
        if keys.keys == 0 {
            failing.push(part);
        } else if keys.failure.is_some() {
            degraded.push(part);
        }
    }
    if management.gate.upstream.breaker.state() != BreakerState::Closed {
        degraded.push("imgwire".to_owned());
    }
    if management.gate.in_flight.is_draining() {
        failing.push("draining".to_owned());
    }
    let readiness = Readiness {
        ready: failing.is_empty(),
        failing,
        degraded,
    };
    if readiness.ready {
        HttpResponse::Ok().json(readiness)
    } else {
        HttpResponse::ServiceUnavailable().json(readiness)
    }
}

/// Gives what is counted to Prometheus.
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
    for (name, keys) in gate.rules.load().identities.keys() {
        let is_stale = keys.failure.is_some();
        gate.metrics.identity_keys(name, keys.keys, is_stale);
    }
    gate.metrics.upstream(&gate.upstream);
    for store in gate.rules.load().stores.iter() {
        gate.metrics.store_up(&store.name, store.is_healthy());
    }
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, TEXT))
        .body(gate.metrics.encode(gate.in_flight.running()))
}

/// This API, with the routes that are in force.
pub(super) async fn document(management: web::Data<Management>) -> HttpResponse {
    let rules = management.gate.rules.load();
    let routes = rules.routes.iter().map(|route| route.path.as_str());
    HttpResponse::Ok().json(openapi::document(routes))
}
