//! What handlers and middleware share: the state of their worker, the limit of running requests, and how they log one.

use std::{
    borrow::Cow,
    mem,
    rc::Rc,
    sync::{Arc, LazyLock},
    time::Duration,
};

use actix_web::{HttpRequest, HttpResponse};
use arc_swap::ArcSwap;
use policies::{Clock, RoutePath};

use super::{
    error::{ApiError, refuse},
    operator_access::OperatorAccess,
    session_cookie::SessionCookie,
};
use crate::{
    gate::rules::Rules,
    identities::ClientAddress,
    imgwire::{Client, Upstream},
    outbound::in_flight::{InFlight, Running, with_place},
    telemetry::{LogFields, Metrics, RequestId, RequestLine},
};

pub const SESSION_PATH: &str = "/api/imgwire/session";

#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// The maximum size in bytes.
    pub bytes: usize,
    /// How long the body may take to arrive.
    pub time: Duration,
}

/// Shared by all workers.
pub struct Gate {
    pub rules: ArcSwap<Rules>,
    pub client_address: ClientAddress,
    pub body_limits: BodyLimits,
    pub session: Option<Arc<SessionCookie>>,
    pub operators: ArcSwap<OperatorAccess>,
    pub in_flight: InFlight,
    /// Shared by the Imgwire clients of all workers.
    pub upstream: Arc<Upstream>,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
}

/// The state of one worker.
#[derive(Clone)]
pub struct Worker {
    pub gate: Arc<Gate>,
    pub client: Rc<Client>,
}

pub(crate) fn worker(request: &HttpRequest) -> &Worker {
    request
        .app_data()
        .expect("every route is mounted with its worker")
}

pub(super) fn enter(gate: &Gate) -> Option<Running> {
    let running = gate.in_flight.enter();
    if running.is_none() {
        gate.metrics.overloaded().inc();
    }
    running
}

/// Runs `work` if fewer than `max_in_flight` requests are running.
pub(super) async fn run_within_limit(
    request: &HttpRequest,
    work: impl Future<Output = HttpResponse>,
) -> HttpResponse {
    let Some(running) = enter(&worker(request).gate) else {
        return refuse(request, &ApiError::Overloaded);
    };
    let log_on_disconnect = LogOnDisconnect(request);
    let response = with_place(running.in_flight(), work).await;
    mem::forget(log_on_disconnect);
    response
}

/// Logs the request when it is dropped. The framework drops a handler if its client disconnects before the response.
pub(super) struct LogOnDisconnect<'a>(pub(super) &'a HttpRequest);

impl Drop for LogOnDisconnect<'_> {
    fn drop(&mut self) {
        let (request, id) = (self.0, RequestId::of(self.0));
        line(request, request.path()).write(&id, None, &LogFields::default());
    }
}

/// The log line of a request.
pub(super) fn line<'a>(request: &HttpRequest, path: impl Into<Cow<'a, str>>) -> RequestLine<'a> {
    let client = match request.app_data::<Worker>() {
        Some(worker) => Some(worker.gate.client_address.of(request)),
        None => request.peer_addr().map(|peer| peer.ip()),
    };
    RequestLine {
        client,
        method: request.method().clone(),
        route: route(request),
        path: path.into(),
    }
}

/// The path that a request matches: of a route or what follows it, as a template, or of the session.
pub(super) fn matched_path(gate: &Gate, path: &str) -> Option<RoutePath> {
    // Parsed once, because names are interned.
    static SESSION: LazyLock<Option<RoutePath>> =
        LazyLock::new(|| RoutePath::parse(SESSION_PATH).ok());

    if let Some(found) = gate.rules.load().find(path) {
        return Some(found.name().clone());
    }
    let is_session = gate.session.is_some() && path == SESSION_PATH;
    is_session.then(|| SESSION.clone()).flatten()
}

/// The route of the request, or the one whose allowance it reads.
fn route(request: &HttpRequest) -> Option<RoutePath> {
    let rules = request.app_data::<Worker>()?.gate.rules.load();
    let found = rules.find(request.path())?;
    Some(found.route.path.clone())
}
