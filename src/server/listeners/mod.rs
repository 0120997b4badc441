//! The public listener and the management listener, with the middleware of each.

mod connections;
mod head_budget;
mod listener;
mod parser_refusal;
mod request_framing;
mod server;
mod timed_stream;

use std::{num::NonZeroUsize, rc::Rc, sync::Arc, thread::available_parallelism};

use actix_session::SessionMiddleware;
use actix_web::{
    App,
    cookie::Key,
    middleware::{Condition, from_fn},
    web::ServiceConfig,
};
use rustls::ClientConfig;
use tracing_actix_web::TracingLogger;

pub(crate) use self::listener::{Closer, Listener, POLL_INTERVAL};
use self::server::Limits;
use crate::{
    config::server::{ServerSettings, SocketMode},
    http::{
        self, Cors, Gate, Worker, envelope,
        management::{self, Management},
        session_cookie,
        session_store::Sessions,
    },
    imgwire::Client,
    server::{StartError, settings::Settings},
    telemetry::RootSpan,
};

/// Adds services to the public listener.
pub(crate) type Mount = Arc<dyn Fn(&mut ServiceConfig) + Send + Sync>;

pub(crate) fn serve_public(
    settings: Settings,
    sessions: Sessions,
    gate: Arc<Gate>,
    tls: Arc<ClientConfig>,
    mount: Mount,
    max_connections: usize,
) -> Result<Listener, StartError> {
    let bind = settings.server.bind.clone();
    let limits = Limits::of(&settings.server, workers(&settings.server), max_connections);
    let socket_mode = settings.server.socket_mode;
    let settings = Arc::new(settings);
    let cors = Cors::new(&settings.server.allowed_origins);
    let app = move || {
        let worker = Worker {
            gate: gate.clone(),
            client: Rc::new(Client::new(
                &settings.imgwire,
                &tls,
                gate.upstream.clone(),
                gate.clock.clone(),
            )),
        };
        let cors = cors.clone();
        let session = gate.session.clone();
        let has_session = session.is_some();
        let served = gate.clone();
        let middleware = match &session {
            Some(cookie) => cookie.middleware(sessions.clone()),
            // Never used: the condition below is false.
            None => SessionMiddleware::new(sessions.clone(), Key::generate()),
        };
        App::new()
            .configure(|config| {
                mount(config);
                http::mount(config, &worker);
            })
            .wrap(Condition::new(
                has_session,
                from_fn(session_cookie::restore_cookies),
            ))
            .wrap(Condition::new(has_session, middleware))
            .wrap(Condition::new(
                has_session,
                from_fn(move |request, next| {
                    session_cookie::isolate_session_cookie(session.clone(), request, next)
                }),
            ))
            .wrap(from_fn(move |request, next| {
                envelope(
                    served.clone(),
                    http::Listener::Public,
                    cors.clone(),
                    request,
                    next,
                )
            }))
            .wrap(Condition::new(
                RootSpan::is_enabled(),
                TracingLogger::<RootSpan>::new(),
            ))
    };
    server::serve(&bind, socket_mode, limits, app)
}

pub(crate) fn serve_management(
    settings: &Settings,
    gate: Arc<Gate>,
    tls: Arc<ClientConfig>,
) -> Result<Listener, StartError> {
    let imgwire = settings.imgwire.clone();
    let app = move || {
        let management = Management {
            gate: gate.clone(),
            client: Rc::new(Client::new(
                &imgwire,
                &tls,
                gate.upstream.clone(),
                gate.clock.clone(),
            )),
        };
        let (gate, guarded) = (gate.clone(), gate.clone());
        App::new()
            .configure(|config| http::management::mount(config, &management))
            .wrap(from_fn(move |request, next| {
                management::guard(guarded.clone(), request, next)
            }))
            .wrap(from_fn(move |request, next| {
                envelope(
                    gate.clone(),
                    http::Listener::Management,
                    Cors::default(),
                    request,
                    next,
                )
            }))
            .wrap(Condition::new(
                RootSpan::is_enabled(),
                TracingLogger::<RootSpan>::new(),
            ))
    };
    let max_connections = settings.server.max_connections.get();
    let limits = Limits::of(&settings.server, 1, max_connections);
    // Peers of a Unix socket count as this machine and need no token, so the socket is never open to all users.
    server::serve(
        &settings.management.bind,
        SocketMode::default(),
        limits,
        app,
    )
}

/// The number of worker threads: one per core by default.
pub(crate) fn workers(server: &ServerSettings) -> usize {
    let workers = server.workers.or_else(|| available_parallelism().ok());
    workers.map_or(1, NonZeroUsize::get)
}
