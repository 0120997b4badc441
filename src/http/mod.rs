//! The HTTP surface: thin handlers, one file each.

pub(crate) mod allowance;
pub(crate) mod body;
mod cors;
mod envelope;
pub mod error;
pub(crate) mod host;
pub mod management;
pub mod openapi;
pub(crate) mod playground;
mod ratelimit_fields;
pub mod request_id;
pub mod session;
pub(crate) mod session_cookie;
pub(crate) mod session_store;
pub(crate) mod upload_token;

use std::{mem, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header},
    web,
};
use arc_swap::ArcSwap;
use policies::{Clock, DeclaredFile, UploadRequest};

pub use self::body::BodyLimits;
pub use self::{
    cors::Cors,
    envelope::{Listener, envelope},
};
use crate::{
    gate::rules::{Route, Rules},
    http::{error::ApiError, request_id::RequestId, session_cookie::SessionCookie},
    identities::{ClientAddress, Limited, RequestCredentials},
    imgwire::{Caller, Client, Upstream},
    server::in_flight::{InFlight, Running, with_place},
    telemetry::{Account, Metrics, Traces, trace_state},
};

pub const SESSION_PATH: &str = "/api/imgwire/session";

/// Appended to a route's path.
pub const ALLOWANCE: &str = "/allowance";

/// Shared by all workers.
pub struct Gate {
    pub rules: ArcSwap<Rules>,
    pub client_address: ClientAddress,
    pub body_limits: BodyLimits,
    pub session: Option<Arc<SessionCookie>>,
    pub in_flight: InFlight,
    /// Shared by the workers' clients of Imgwire.
    pub upstream: Arc<Upstream>,
    pub metrics: Arc<Metrics>,
    pub traces: Option<Traces>,
    pub clock: Arc<dyn Clock>,
}

/// The state of one worker.
#[derive(Clone)]
pub struct Worker {
    pub gate: Arc<Gate>,
    pub client: std::rc::Rc<Client>,
}

pub fn mount(config: &mut web::ServiceConfig, worker: &Worker) {
    config.app_data(worker.clone());
    if worker.gate.session.is_some() {
        config.service(session::resource());
    }
    // The routes change with a reload, and actix-web's are fixed.
    config.default_service(web::to(dispatch));
}

async fn dispatch(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let rules = worker(&request).gate.rules.load();
    let path = request.path();
    if let Some(route) = rules.route(path).cloned() {
        // Release the rules: a running request keeps only its own route.
        drop(rules);
        return match *request.method() {
            Method::POST => upload_token::post(request, payload, route).await,
            _ => refuse(&request, &ApiError::MethodNotAllowed(&[Method::POST])),
        };
    }
    let route = path.strip_suffix(ALLOWANCE);
    let route = route.and_then(|path| rules.route(path)).cloned();
    drop(rules);
    match (route, request.method()) {
        (Some(route), &Method::GET) => allowance::get(request, route).await,
        (Some(_), _) => refuse(&request, &ApiError::MethodNotAllowed(&[Method::GET])),
        (None, _) => refuse(&request, &ApiError::NotFound),
    }
}

fn enter(gate: &Gate) -> Option<Running> {
    let running = gate.in_flight.enter();
    if running.is_none() {
        gate.metrics.overloaded().inc();
    }
    running
}

/// Does `work` if a place is free.
async fn in_place(request: &HttpRequest, work: impl Future<Output = HttpResponse>) -> HttpResponse {
    let Some(running) = enter(&worker(request).gate) else {
        return refuse(request, &ApiError::Overloaded);
    };
    let unanswered = Unanswered(request);
    let response = with_place(running.in_flight(), work).await;
    mem::forget(unanswered);
    response
}

/// Logs a request whose client disconnects before the response: the framework then drops the handler.
struct Unanswered<'a>(&'a HttpRequest);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        envelope::log_unanswered(self.0);
    }
}

/// Responds with 500, and logs the fault.
fn fail(request: &HttpRequest, fault: &impl std::fmt::Display) -> HttpResponse {
    let mut response = refuse(request, &ApiError::Internal);
    Account::amend(&mut response, |account| {
        account.fault = Some(fault.to_string())
    });
    response
}

pub(crate) fn refuse(request: &HttpRequest, error: &ApiError) -> HttpResponse {
    error.response(&RequestId::of(request))
}

pub(crate) fn worker(request: &HttpRequest) -> &Worker {
    request
        .app_data()
        .expect("every route is mounted with its worker")
}

fn facts(
    request: &HttpRequest,
    route: &Route,
    body: body::Body,
    limited: Limited,
) -> Result<UploadRequest, ApiError> {
    let gate = &worker(request).gate;
    Ok(UploadRequest {
        route: route.path.clone(),
        workspace: match body.workspace {
            Some(workspace) => Some(workspace),
            None => body::workspace_header(request.headers())?,
        },
        purpose: body.purpose.or_else(|| route.purpose.clone()),
        file: body.file.map(|body::Object(file)| DeclaredFile {
            name: file.name,
            mime_type: file.mime_type,
            size: file.size,
        }),
        ip: gate.client_address.of(request),
        credentials: Box::new(RequestCredentials::new(
            request.clone(),
            route.identities.clone(),
            limited,
        )),
    })
}

/// The request's id, and its W3C trace context if that is valid.
fn caller(request: &HttpRequest) -> Caller {
    let headers = request.headers();
    let parent = headers.get("traceparent").filter(|value| {
        let bytes = value.as_bytes();
        bytes.len() >= 55
            && bytes.len() <= 128
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_hexdigit() || *byte == b'-')
    });
    Caller {
        request_id: RequestId::of(request),
        parent: parent.cloned(),
        state: parent.and_then(|_| trace_state(headers)),
    }
}

/// Whether a body is there, by its framing (RFC 9112, 6.3).
fn has_body(request: &HttpRequest) -> bool {
    let headers = request.headers();
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers
            .get(header::CONTENT_LENGTH)
            .is_some_and(|length| length.as_bytes() != b"0")
}
