//! State that handlers share.

use std::{rc::Rc, sync::Arc};

use actix_web::HttpRequest;
use arc_swap::ArcSwap;
use policies::Clock;

use super::{body::BodyLimits, session_cookie::SessionCookie};
use crate::{
    gate::rules::Rules,
    identities::ClientAddress,
    imgwire::{Client, Upstream},
    outbound::in_flight::InFlight,
    telemetry::Metrics,
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
