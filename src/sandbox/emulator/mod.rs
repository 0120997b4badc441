//! An in-memory emulator of Imgwire for the sandbox and the tests. It listens on loopback, and simulates faults on
//! demand.
//!
//! It follows the published API: keys, environments, CORS origins, billing, tokens, uploads, images and the formats of
//! errors. A [`Scenario`] switches all of this, and what Imgwire does not document. Everything in memory is bounded.

mod api;
mod billing;
mod control;
mod cors;
mod errors;
mod faults;
mod ids;
mod image_type;
mod images;
mod keys;
mod misbehave;
mod mood;
mod reads;
mod scenario;
mod state;
mod tokens;
mod upload_request;

use std::{io, net::Ipv4Addr, sync::Arc};

use actix_cors::Cors;
use actix_web::{
    App, Error, HttpServer,
    body::MessageBody,
    dev::{ServerHandle, ServiceRequest, ServiceResponse},
    http::header::{self, HeaderValue},
    middleware::{Next, from_fn},
    rt, web,
};
use jiff::{SignedDuration, fmt::rfc2822::DateTimePrinter};
use policies::{Clock, SystemClock};
use serde_json::Value;

pub(crate) use self::mood::Mood;
use self::{faults::PUT_PREFIX, misbehave::misbehave, state::State};
pub use self::{
    faults::{Endpoint, Misbehaviour},
    reads::ImageRead,
    scenario::{
        Billing, CLIENT_KEY, ClientKey, CorsOrigin, ENVIRONMENT, ErrorType, IdempotencyScope,
        ListOrder, SERVER_API_KEY, Scenario, ServerKey, Undocumented,
    },
};
use crate::config::origin::Origin;

/// The emulator stops when this is dropped.
pub struct Emulator {
    state: Arc<State>,
    url: String,
    server: ServerHandle,
}

impl Emulator {
    /// Listens on a free port of 127.0.0.1. Must be called within an actix system.
    pub fn start() -> io::Result<Self> {
        Self::start_at(0, Arc::new(SystemClock::new()))
    }

    /// Listens on a port of 127.0.0.1; 0 is any free port. Must be called within an actix system.
    pub fn start_at(port: u16, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let state = Arc::new(State::new(clock));
        let shared = state.clone();
        let server = HttpServer::new(move || {
            let state = web::Data::from(shared.clone());
            let (misbehaving, dating) = (state.clone(), state.clone());
            App::new()
                .app_data(state.clone())
                .configure(api::mount)
                .configure(control::mount)
                .wrap(from_fn(move |request, next| {
                    misbehave(misbehaving.clone(), request, next)
                }))
                .wrap(cors(state))
                .wrap(from_fn(move |request, next| {
                    date(dating.clone(), request, next)
                }))
        })
        .workers(1)
        .disable_signals()
        .on_connect({
            let state = state.clone();
            move |connection, extensions| {
                state.lock().connections += 1;
                misbehave::keep_socket(connection, extensions);
            }
        })
        .bind((Ipv4Addr::LOCALHOST, port))?;
        let address = server.addrs().first().copied();
        let port = address.map_or(0, |address| address.port());
        let url = format!("http://127.0.0.1:{port}");
        state.lock().url.clone_from(&url);
        let server = server.run();
        let handle = server.handle();
        rt::spawn(server);
        Ok(Self {
            state,
            url,
            server: handle,
        })
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Changes the account, or how the service behaves.
    pub fn change(&self, change: impl FnOnce(&mut Scenario)) {
        change(&mut self.state.lock().scenario);
    }

    /// Misbehaves on all requests for a token, until it is called with `None`.
    pub fn misbehave(&self, how: Option<Misbehaviour>) {
        self.misbehave_at(Endpoint::Token, how);
    }

    /// Misbehaves on all requests to an endpoint, until it is called with `None`.
    pub fn misbehave_at(&self, endpoint: Endpoint, how: Option<Misbehaviour>) {
        self.state.lock().faults.set(endpoint, how);
    }

    /// Misbehaves on the next requests for a token, one for each of `ways`. Takes precedence over
    /// [`misbehave`](Self::misbehave).
    pub fn misbehave_next(&self, ways: impl IntoIterator<Item = Misbehaviour>) {
        self.misbehave_next_at(Endpoint::Token, ways);
    }

    /// The same for requests to an endpoint.
    pub fn misbehave_next_at(
        &self,
        endpoint: Endpoint,
        ways: impl IntoIterator<Item = Misbehaviour>,
    ) {
        self.state.lock().faults.add_next(endpoint, ways);
    }

    /// The number of created tokens.
    #[must_use]
    pub fn created(&self) -> usize {
        self.state.lock().tokens.created
    }

    /// The number of requests for a token, including failed ones.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.asked_at(Endpoint::Token)
    }

    /// The number of requests to an endpoint, including failed ones.
    #[must_use]
    pub fn asked_at(&self, endpoint: Endpoint) -> usize {
        self.state.lock().faults.asked(endpoint)
    }

    /// The images of an environment, the oldest first, without deleted ones.
    #[must_use]
    pub fn images(&self, environment: &str) -> Vec<Value> {
        let memory = self.state.lock();
        let now = self.state.clock.now();
        let images = memory.images.of(environment, false);
        images.map(|image| memory.describe(image, now)).collect()
    }

    /// All reads of single images, the oldest first.
    #[must_use]
    pub fn reads(&self) -> Vec<ImageRead> {
        self.state.lock().reads.all()
    }

    #[must_use]
    pub fn connections(&self) -> usize {
        self.state.lock().connections
    }

    /// The headers of the last request for a token, with lower-case names.
    #[must_use]
    pub fn last_headers(&self) -> Vec<(String, String)> {
        self.state.lock().last_headers.clone()
    }

    pub fn expire_tokens(&self) {
        self.state.lock().tokens.expire_all();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // `stop` sends its command at once; the future only waits for the result.
        drop(self.server.stop(false));
    }
}

/// Pages of this machine may read every response, except perhaps that of a PUT. The emulator's keys are well known, so other
/// pages that are open in the same browser may not. Uploads check the origin against the CORS origins themselves.
fn cors(state: web::Data<State>) -> Cors {
    Cors::default()
        .allowed_origin_fn(move |origin, request| {
            let origin = origin.to_str().ok().and_then(Origin::parse);
            let id = request.uri.path().strip_prefix(PUT_PREFIX);
            origin.is_some_and(|origin| origin.is_loopback())
                && id.is_none_or(|id| state.is_open_to_pages(id))
        })
        .allow_any_method()
        .allow_any_header()
        .expose_any_header()
}

/// Adds the `Date` header.
async fn date<B: MessageBody + 'static>(
    state: web::Data<State>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let mut response = next.call(request).await?;
    let skew = i64::from(state.lock().scenario.date_skew_seconds);
    let now = state
        .clock
        .now()
        .saturating_add(SignedDuration::from_secs(skew));
    let text = now.and_then(|now| DateTimePrinter::new().timestamp_to_rfc9110_string(&now));
    if let Some(date) = text.ok().and_then(|text| HeaderValue::try_from(text).ok()) {
        response.headers_mut().insert(header::DATE, date);
    }
    Ok(response)
}
