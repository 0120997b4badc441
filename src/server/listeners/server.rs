//! A server on one address that limits the number of connections and the time of requests.
//!
//! actix-web's `HttpServer` does not allow a layer between a socket and its HTTP service, so this module combines the
//! two itself.

use std::{
    fmt,
    future::ready,
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use actix_http::{HttpService, Request, Response};
use actix_server::ServerBuilder;
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt as _, fn_service, map_config,
};
use actix_web::{
    Error,
    body::MessageBody,
    dev::{AppConfig, Server},
    rt::net::{TcpStream, UnixStream},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{head_budget::HeadBudget, timed_stream::TimedStream};
use crate::{
    config::server::{Bind, ServerSettings, SocketMode},
    server::{StartError, unix_socket},
};

/// Longer than proxies keep idle connections, so that a proxy never sends a request on a closing connection.
const KEEP_ALIVE: Duration = Duration::from_secs(125);

/// How long the gate waits for a client to close a connection.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

const BACKLOG: i32 = 2048;

#[derive(Clone, Copy)]
pub(super) struct Limits {
    workers: usize,
    /// Per worker.
    connections: usize,
    request_timeout: Duration,
}

impl Limits {
    pub(super) fn of(settings: &ServerSettings, workers: usize, connections: usize) -> Self {
        Self {
            workers,
            connections: (connections / workers).max(1),
            request_timeout: settings.request_timeout.get(),
        }
    }
}

/// Returns its address, unless it is a Unix socket.
pub(super) fn serve<F, I, S, B>(
    bind: &Bind,
    socket_mode: SocketMode,
    limits: Limits,
    app: F,
) -> Result<(Server, Option<SocketAddr>), StartError>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let heads = HeadBudget::default();
    /// The HTTP service of one kind of socket.
    macro_rules! http {
        ($socket:ty, $peer:expr) => {
            move || {
                let app = app()
                    .into_factory()
                    .map_err(|error| error.into().error_response());
                let http = HttpService::build()
                    .keep_alive(KEEP_ALIVE)
                    // Limits the first head from the start of the connection; the stream limits everything after it.
                    .client_request_timeout(limits.request_timeout)
                    .client_disconnect_timeout(DISCONNECT_TIMEOUT)
                    .h1(map_config(app, |_| AppConfig::default()));
                let heads = heads.clone();
                fn_service(move |socket: $socket| {
                    let peer = $peer(&socket);
                    let stream = TimedStream::new(socket, limits.request_timeout, heads.for_connection());
                    ready(Ok((stream, peer)))
                })
                .and_then(http)
            }
        };
    }

    let builder = ServerBuilder::new()
        .workers(limits.workers)
        .max_concurrent_connections(limits.connections)
        .disable_signals();
    let served = || match bind {
        Bind::Tcp(address) => {
            let listener = listen(*address)?;
            let address = listener.local_addr()?;
            let peer = |socket: &TcpStream| socket.peer_addr().ok();
            let builder = builder.listen("tcp", listener, http!(TcpStream, peer))?;
            Ok((builder.run(), Some(address)))
        }
        Bind::Unix(path) => {
            let peer = |_: &UnixStream| None;
            let listener = unix_socket::listen(path, socket_mode)?;
            let builder = builder.listen_uds("unix", listener, http!(UnixStream, peer))?;
            Ok((builder.run(), None))
        }
    };
    served().map_err(|source| StartError::Listen {
        bind: bind.clone(),
        source,
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A gate that just stopped leaves connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
