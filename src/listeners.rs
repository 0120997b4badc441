//! The two listeners: for pages, and for operators. What every request of theirs goes through is put together here.

use std::{io, net::SocketAddr, num::NonZeroUsize, rc::Rc, sync::Arc, time::Duration};

use actix_session::SessionMiddleware;
use actix_web::{
    App, HttpServer,
    cookie::Key,
    dev::Server,
    middleware::{Condition, from_fn},
};
use policies::Clock;
use rustls::ClientConfig;
use tracing_actix_web::TracingLogger;

use crate::{
    imgwire::Client,
    playground::Playground,
    routes::{self, Cors, Gate, Worker, envelope, management::Management},
    session_cookie,
    session_store::Sessions,
    settings::{Settings, server::Bind},
    telemetry::RootSpan,
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
) -> io::Result<(Server, Option<SocketAddr>)> {
    let bind = settings.server.bind.clone();
    let workers = settings.server.workers;
    let clock = clock.clone();
    let settings = Arc::new(settings);
    let cors = Cors::new(&settings.server.allowed_origins);
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
        let cors = cors.clone();
        let session = gate.session.clone();
        let has_session = session.is_some();
        let middleware = match &session {
            Some(cookie) => cookie.middleware(sessions.clone()),
            // Never asked: the condition below is false.
            None => SessionMiddleware::new(sessions.clone(), Key::generate()),
        };
        App::new()
            .configure(|config| {
                if let Some(playground) = &playground {
                    playground.mount(config);
                }
                routes::mount(config, &worker);
            })
            .wrap(Condition::new(has_session, from_fn(session_cookie::within)))
            .wrap(Condition::new(has_session, middleware))
            .wrap(Condition::new(
                has_session,
                from_fn(move |request, next| {
                    session_cookie::around(session.clone(), request, next)
                }),
            ))
            .wrap(from_fn(move |request, next| {
                envelope(in_flight.clone(), cors.clone(), request, next)
            }))
            .wrap(Condition::new(
                RootSpan::is_enabled(),
                TracingLogger::<RootSpan>::new(),
            ))
    })
    .workers(workers.map_or_else(default_workers, NonZeroUsize::get))
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(HEAD_TIMEOUT)
    .disable_signals();
    let server = match &bind {
        Bind::Tcp(address) => server.bind(address)?,
        Bind::Unix(path) => server.bind_uds(path)?,
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
        App::new()
            .configure(|config| routes::management::mount(config, &management))
            .wrap(from_fn(move |request, next| {
                envelope(in_flight.clone(), Cors::default(), request, next)
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
        Bind::Unix(path) => server.bind_uds(path)?,
    };
    let address = tcp_address(bind, &server.addrs());
    Ok((server.run(), address))
}

fn tcp_address(bind: &Bind, addresses: &[SocketAddr]) -> Option<SocketAddr> {
    match bind {
        Bind::Tcp(_) => addresses.first().copied(),
        Bind::Unix(_) => None,
    }
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}
