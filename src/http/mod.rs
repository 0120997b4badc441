//! The HTTP API. Each handler has its own file.

mod allowance;
mod answer;
mod context;
mod decision;
mod envelope;
pub mod error;
pub(crate) mod host;
mod images;
mod json_error;
pub mod management;
pub mod openapi;
mod operator_access;
mod session;
pub(crate) mod session_cookie;
pub(crate) mod session_store;
mod token_request;
mod upload_body;
mod upload_token;
mod uploads;

use actix_web::{HttpRequest, HttpResponse, Route, http::Method, web};

use self::error::{ApiError, NO_ROUTE};
pub(crate) use self::{context::worker, error::refuse};
pub use self::{
    context::{BodyLimits, Gate, SESSION_PATH, Worker},
    envelope::{Cors, Listener, envelope},
    operator_access::OperatorAccess,
};
use crate::gate::route_paths::Target;

/// Rejects all methods that a resource does not allow.
fn reject_methods(allowed: &'static [Method]) -> Route {
    web::to(move |request: HttpRequest| {
        std::future::ready(refuse(&request, &ApiError::MethodNotAllowed(allowed)))
    })
}

pub fn mount(config: &mut web::ServiceConfig, worker: &Worker) {
    config.app_data(worker.clone());
    if worker.gate.session.is_some() {
        config.service(session::resource());
    }
    // The config can change routes while the gate runs, but actix-web's routes are fixed.
    config.default_service(web::to(dispatch));
}

async fn dispatch(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let rules = worker(&request).gate.rules.load();
    let found = rules.find(request.path());
    let found = found.map(|found| (found.route.clone(), found.target, found.workspace));
    // A running request keeps only its own route alive.
    drop(rules);
    let Some((route, target, workspace)) = found else {
        return refuse(&request, &ApiError::NotFound(NO_ROUTE));
    };
    match (target, request.method()) {
        (Target::Token, &Method::POST) => upload_token::post(request, payload, route).await,
        (Target::Allowance, &Method::GET) => allowance::get(request, route, workspace).await,
        (Target::CreateUpload, &Method::POST) => {
            uploads::create(request, payload, route, workspace).await
        }
        (Target::Images, &Method::GET) => images::list(request, route, workspace).await,
        (Target::Image(id), &Method::GET) => images::show(request, route, id, workspace).await,
        (Target::Image(id), &Method::DELETE) => images::delete(request, route, id, workspace).await,
        (target, _) => refuse(&request, &ApiError::MethodNotAllowed(methods(&target))),
    }
}

fn methods(target: &Target) -> &'static [Method] {
    match target {
        Target::Token | Target::CreateUpload => &[Method::POST],
        Target::Allowance | Target::Images => &[Method::GET],
        Target::Image(_) => &[Method::GET, Method::DELETE],
    }
}
