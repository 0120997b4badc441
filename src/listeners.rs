//! The two listeners: for pages, and for operators. What every request of theirs goes through is put together here.

use std::{
    io, net::SocketAddr, num::NonZeroUsize, rc::Rc, sync::Arc, thread::available_parallelism,
    time::Duration,
};

use actix_cors::Cors;
use actix_session::SessionMiddleware;
use actix_web::{
    App, HttpServer,
    cookie::Key,
    dev::Server,
    http::Method,
    middleware::{Condition, from_fn},
};
use policies::Clock;
use rustls::ClientConfig;
use tracing_actix_web::TracingLogger;

use crate::{
    identity::KeyRotation,
    imgwire::Client,
    playground::Playground,
    request_id::X_REQUEST_ID,
    routes::{
        self, Gate, Worker, envelope,
        management::{self, Management},
        session::rotate,
    },
    session_store::Sessions,
    settings::{
        Settings,
        server::{Bind, ServerSettings, SocketMode},
    },
    telemetry::RootSpan,
    unix_socket,
};

/// How long an idle connection is kept: longer than proxies keep theirs, so that none of them sends a
/// request into a connection that closes.
const KEEP_ALIVE: Duration = Duration::from_secs(125);

/// How long a client may take to send the head of its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the listener for pages. Returns its address too, unless it is a Unix socket.
pub(crate) fn serve_public(
    settings: Settings,
    sessions: Sessions,
    gate: Arc<Gate>,
    tls: Arc<ClientConfig>,
    clock: &Arc<dyn Clock>,
    playground: Option<Arc<Playground>>,
    max_connections: usize,
) -> io::Result<(Server, Option<SocketAddr>)> {
    let bind = settings.server.bind.clone();
    let socket_mode = settings.server.socket_mode;
    let workers = workers(&settings.server);
    let clock = clock.clone();
    let settings = Arc::new(settings);
    let server = HttpServer::new(move || {
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
                envelope(in_flight.clone(), request, next)
            }))
            .wrap(Condition::new(
                RootSpan::is_enabled(),
                TracingLogger::<RootSpan>::new(),
            ))
    })
    .workers(workers)
    .max_connections((max_connections / workers).max(1))
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(HEAD_TIMEOUT)
    .disable_signals();
    let server = match &bind {
        Bind::Tcp(address) => server.bind(address)?,
        Bind::Unix(path) => server.listen_uds(unix_socket::listen(path, socket_mode)?)?,
    };
    let address = tcp_address(&bind, &server.addrs());
    Ok((server.run(), address))
}

/// Opens the listener for operators. Returns its address too, unless it is a Unix socket.
pub(crate) fn serve_management(
    bind: &Bind,
    management: &Management,
) -> io::Result<(Server, Option<SocketAddr>)> {
    let management = management.clone();
    let in_flight = management.gate.in_flight.clone();
    let server = HttpServer::new(move || {
        let in_flight = in_flight.clone();
        let guarded = management.clone();
        App::new()
            .configure(|config| routes::management::mount(config, &management))
            .wrap(from_fn(move |request, next| {
                management::guard(guarded.clone(), request, next)
            }))
            .wrap(from_fn(move |request, next| {
                envelope(in_flight.clone(), request, next)
            }))
            .wrap(Condition::new(
                RootSpan::is_enabled(),
                TracingLogger::<RootSpan>::new(),
            ))
    })
    .workers(1)
    .disable_signals();
    let server = match bind {
        Bind::Tcp(address) => server.bind(address)?,
        // Every peer of a Unix socket counts as this machine, so this one is never open to all users of it.
        Bind::Unix(path) => server.listen_uds(unix_socket::listen(path, SocketMode::default())?)?,
    };
    let address = tcp_address(bind, &server.addrs());
    Ok((server.run(), address))
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

fn tcp_address(bind: &Bind, addresses: &[SocketAddr]) -> Option<SocketAddr> {
    match bind {
        Bind::Tcp(_) => addresses.first().copied(),
        Bind::Unix(_) => None,
    }
}

/// How many workers there are: one per core, unless the config says otherwise.
pub(crate) fn workers(server: &ServerSettings) -> usize {
    let workers = server.workers.or_else(|| available_parallelism().ok());
    workers.map_or(1, NonZeroUsize::get)
}
