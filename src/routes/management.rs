//! The management listener: whether the gate lives, whether it is ready, and what it counted.

use std::sync::Arc;

use actix_web::{HttpResponse, http::header, web};
use policies::StoreName;
use serde::Serialize;

use super::Gate;
use crate::stores::Store;

/// What the management listener knows.
#[derive(Clone)]
pub struct Management {
    /// What all workers share.
    pub gate: Arc<Gate>,
    /// The stores, by name.
    pub stores: Vec<(StoreName, Arc<dyn Store>)>,
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    /// The parts that are not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failing: Vec<String>,
    /// The parts that serve what they have, for nothing newer can be had.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    degraded: Vec<String>,
}

/// Mounts the management endpoints.
pub fn mount(config: &mut web::ServiceConfig, management: &Management) {
    config
        .app_data(web::Data::new(management.clone()))
        .service(web::resource("/livez").route(web::get().to(live)))
        .service(web::resource("/readyz").route(web::get().to(ready)))
        .service(web::resource("/metrics").route(web::get().to(metrics)));
}

async fn live() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({ "live": true }))
}

async fn ready(management: web::Data<Management>) -> HttpResponse {
    let mut failing: Vec<_> = management
        .stores
        .iter()
        .filter(|(_, store)| !store.is_healthy())
        .map(|(name, _)| format!("stores.{name}"))
        .collect();
    let mut degraded = Vec::new();
    for (name, keys) in management.gate.identities.keys() {
        let part = format!("identities.{name}");
        if keys.keys == 0 {
            failing.push(part);
        } else if keys.is_stale {
            degraded.push(part);
        }
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

async fn metrics(management: web::Data<Management>) -> HttpResponse {
    const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let gate = &management.gate;
    for (name, keys) in gate.identities.keys() {
        gate.metrics.identity_keys(name, keys.keys, keys.is_stale);
    }
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, TEXT))
        .body(gate.metrics.encode(gate.in_flight.count()))
}
