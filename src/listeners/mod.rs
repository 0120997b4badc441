//! The two listeners: for pages, and for operators. What every request of theirs goes through is put together here.

mod request_framing;
mod server;
mod timed_stream;

use std::{io, net::SocketAddr, num::NonZeroUsize, rc::Rc, sync::Arc};

use actix_cors::Cors;
use actix_session::SessionMiddleware;
use actix_web::{
    App,
    cookie::Key,
    dev::Server,
    http::Method,
    middleware::{Condition, from_fn},
};
use policies::Clock;
use rustls::ClientConfig;
use tracing_actix_web::TracingLogger;

use self::server::Limits;
use crate::{
    identity::KeyRotation,
    imgwire::Client,
    playground::Playground,
    request_id::X_REQUEST_ID,
    routes::{self, Gate, Listener, Worker, envelope, management::Management, session::rotate},
    session_store::Sessions,
    settings::{Settings, server::ServerSettings},
    telemetry::RootSpan,
};

/// Opens the listener for pages. Returns its address too, unless it is a Unix socket.
pub(crate) fn serve_public(
    settings: Settings,
    sessions: Sessions,
    gate: Arc<Gate>,
    tls: Arc<ClientConfig>,
    clock: &Arc<dyn Clock>,
    playground: Option<Arc<Playground>>,
) -> io::Result<(Server, Option<SocketAddr>)> {
    let bind = settings.server.bind.clone();
    let workers = settings.server.workers;
    let clock = clock.clone();
    let limits = Limits::of(
        &settings.server,
        workers.map_or_else(default_workers, NonZeroUsize::get),
    );
    let settings = Arc::new(settings);
    let app = move || {
        let worker = Worker {
            gate: gate.clone(),
            client: Rc::new(Client::new(
                &settings.imgwire,
                &settings.api_key,
                &tls,
                gate.upstream.clone(),
                clock.clone(),
            )),
        };
        let in_flight = gate.in_flight.clone();
        let (has_session, session) = match &settings.session {
            Some((session, keys)) => {
                let sessions = sessions.clone();
                let middleware = routes::session::middleware(session, sessions, &keys.current);
                (true, middleware)
            }
            // Never asked: the condition below is false.
            None => (
                false,
                SessionMiddleware::new(sessions.clone(), Key::generate()),
            ),
        };
        let rotation = settings
            .session
            .as_ref()
            .map(|(session, keys)| Rc::new(KeyRotation::new(&session.cookie.get_ref().name, keys)));
        let rotates = rotation
            .as_ref()
            .is_some_and(|rotation| rotation.is_needed());
        App::new()
            .configure(|config| {
                if let Some(playground) = &playground {
                    playground.mount(config);
                }
                routes::mount(config, &worker);
            })
            .wrap(Condition::new(has_session, session))
            .wrap(Condition::new(
                rotates,
                from_fn(move |request, next| rotate(rotation.clone(), request, next)),
            ))
            .wrap(Condition::new(
                !settings.server.allowed_origins.is_empty(),
                cors(&settings.server),
            ))
            .wrap(from_fn(move |request, next| {
                envelope(in_flight.clone(), Listener::Public, request, next)
            }))
            .wrap(Condition::new(
                RootSpan::is_enabled(),
                TracingLogger::<RootSpan>::new(),
            ))
    };
    server::serve(&bind, limits, app)
}

/// Opens the listener for operators. Returns its address too, unless it is a Unix socket.
pub(crate) fn serve_management(
    settings: &Settings,
    management: &Management,
) -> io::Result<(Server, Option<SocketAddr>)> {
    let management = management.clone();
    let in_flight = management.gate.in_flight.clone();
    let app = move || {
        let in_flight = in_flight.clone();
        App::new()
            .configure(|config| routes::management::mount(config, &management))
            .wrap(from_fn(move |request, next| {
                envelope(in_flight.clone(), Listener::Management, request, next)
            }))
            .wrap(Condition::new(
                RootSpan::is_enabled(),
                TracingLogger::<RootSpan>::new(),
            ))
    };
    server::serve(
        &settings.management.bind,
        Limits::of(&settings.server, 1),
        app,
    )
}

/// Pages of the allowed origins may call, with credentials, and read why they were refused.
fn cors(server: &ServerSettings) -> Cors {
    let cors = Cors::default()
        .allowed_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_any_header()
        .expose_headers([
            X_REQUEST_ID.as_str(),
            "ratelimit",
            "ratelimit-policy",
            "retry-after",
            "www-authenticate",
        ])
        .supports_credentials()
        .max_age(3600);
    server
        .allowed_origins
        .iter()
        .fold(cors, |cors, origin| cors.allowed_origin(origin.as_str()))
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}
