//! The HTTP surface: thin handlers, one file each.

mod allowance;
mod body;
mod envelope;
pub mod management;
mod ratelimit_fields;
pub mod session;
mod upload_token;

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header},
    web,
};
use policies::{
    Chain, Clock, Policy, PolicyName, Purpose, RoutePath, UploadRequest, settings::Messages,
};

pub use self::envelope::envelope;
use crate::{
    error::ApiError,
    identity::{ClientAddress, HttpCredentials, Identities},
    imgwire::{Caller, Client},
    in_flight::InFlight,
    request_id::RequestId,
    telemetry::Metrics,
};

/// Where sessions are exchanged.
pub const SESSION_PATH: &str = "/api/imgwire/session";

/// What is appended to a route to ask what a POST would meet.
pub const ALLOWANCE: &str = "/allowance";

/// What all workers share.
pub struct Gate {
    /// The routes and their chains.
    pub routes: Vec<Arc<Route>>,
    /// What users may be told when a policy denies.
    pub messages: Vec<(PolicyName, Messages)>,
    /// All policies, by name.
    pub policies: Vec<(PolicyName, Arc<dyn Policy>)>,
    /// Who a request may come from.
    pub identities: Arc<Identities>,
    /// How the client's address is found.
    pub client_address: ClientAddress,
    /// The longest body that is read, in bytes.
    pub body_limit: usize,
    /// How long a session lasts, if there are sessions.
    pub session_ttl: Option<std::time::Duration>,
    /// The requests that run.
    pub in_flight: InFlight,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

/// A route and its chain.
pub struct Route {
    /// Where it is.
    pub path: RoutePath,
    /// What uploads there are for, whatever a client says.
    pub purpose: Option<Purpose>,
    /// Who may have a token there.
    pub chain: Chain,
}

/// What one worker has for itself.
#[derive(Clone)]
pub struct Worker {
    /// What all workers share.
    pub gate: Arc<Gate>,
    /// This worker's client of Imgwire.
    pub client: std::rc::Rc<Client>,
}

/// Mounts the routes of `worker`'s gate.
pub fn mount(config: &mut web::ServiceConfig, worker: &Worker) {
    config.app_data(worker.clone());
    for route in &worker.gate.routes {
        let path = route.path.as_str();
        config.service(
            web::resource(path)
                .app_data(route.clone())
                .route(web::post().to(upload_token::post))
                .default_service(web::to(async |request: HttpRequest| {
                    refuse(&request, &ApiError::MethodNotAllowed(&[Method::POST]))
                })),
        );
        config.service(
            web::resource(format!("{path}{ALLOWANCE}"))
                .app_data(route.clone())
                .route(web::get().to(allowance::get))
                .default_service(web::to(async |request: HttpRequest| {
                    refuse(&request, &ApiError::MethodNotAllowed(&[Method::GET]))
                })),
        );
    }
    if worker.gate.session_ttl.is_some() {
        config.service(session::resource());
    }
    config.default_service(web::to(async |request: HttpRequest| {
        refuse(&request, &ApiError::NotFound)
    }));
}

fn refuse(request: &HttpRequest, error: &ApiError) -> HttpResponse {
    error.response(&RequestId::of(request))
}

/// The worker that runs `request`.
fn worker(request: &HttpRequest) -> &Worker {
    request
        .app_data()
        .expect("every route is mounted with its worker")
}

/// The route that `request` was sent to.
fn route(request: &HttpRequest) -> &Arc<Route> {
    request
        .app_data()
        .expect("every resource is mounted with its route")
}

/// Reads the facts of a request, whose body is `body`.
fn facts(request: &HttpRequest, body: body::Body) -> Result<UploadRequest, ApiError> {
    let gate = &worker(request).gate;
    let route = route(request);
    Ok(UploadRequest {
        route: route.path.clone(),
        workspace: match body.workspace {
            Some(workspace) => Some(workspace),
            None => body::workspace_header(request.headers())?,
        },
        purpose: body.purpose.or_else(|| route.purpose.clone()),
        file: body.file,
        ip: gate.client_address.of(request),
        credentials: Box::new(HttpCredentials {
            request: request.clone(),
            identities: gate.identities.clone(),
        }),
    })
}

/// The id of a request, and the trace that it belongs to if it says so in W3C's form.
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
        state: parent.and(headers.get("tracestate")).cloned(),
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
