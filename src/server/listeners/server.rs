//! A server on one address that limits the number of connections and the time of requests.
//!
//! actix-web's `HttpServer` does not allow a layer between a socket and its HTTP service, so this module combines the
//! two itself.

use std::{
    fmt,
    fs::{self, File, Permissions},
    future::ready,
    io,
    net::{SocketAddr, TcpListener},
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::Path,
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
    dev::AppConfig,
    rt::{
        self,
        net::{TcpStream, UnixStream},
    },
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{
    connections::Connections,
    head_budget::HeadBudget,
    listener::{BACKLOG, Closer, Listener, ServeHere},
    timed_stream::TimedStream,
};
use crate::{
    config::server::{Bind, ServerSettings, SocketMode},
    server::StartError,
};

/// Longer than proxies keep idle connections, so that a proxy never sends a request on a closing connection.
const KEEP_ALIVE: Duration = Duration::from_secs(125);

/// How long the gate waits for a client to close a connection.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

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

pub(super) fn serve<F, I, S, B>(
    bind: &Bind,
    socket_mode: SocketMode,
    limits: Limits,
    app: F,
) -> Result<Listener, StartError>
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
    let connections = Connections::default();
    let opened = connections.clone();
    /// The HTTP service of one kind of socket.
    macro_rules! http {
        ($socket:ty, $peer:expr) => {
            move || {
                let opened = opened.clone();
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
                    let heads = heads.for_connection();
                    let stream = TimedStream::new(socket, limits.request_timeout, heads, peer, opened.add());
                    ready(Ok((stream, peer)))
                })
                .and_then(http)
            }
        };
    }

    /// Serves accepted sockets on the thread that asks.
    macro_rules! serve_here {
        ($http:ident, $std:ty, $socket:ty) => {{
            let http = $http.clone();
            let serve: ServeHere = Box::new(move |sockets| {
                let http = http.clone();
                Box::pin(async move {
                    if sockets.is_empty() {
                        return Ok(());
                    }
                    let service = http().new_service(()).await;
                    let service =
                        service.map_err(|_| io::Error::other("their service does not start"))?;
                    for socket in sockets {
                        socket.set_nonblocking(true)?;
                        let socket = <$socket>::from_std(<$std>::from(socket))?;
                        rt::spawn(service.call(socket));
                    }
                    Ok(())
                })
            });
            serve
        }};
    }

    let builder = ServerBuilder::new()
        .workers(limits.workers)
        .max_concurrent_connections(limits.connections)
        .disable_signals();
    let served = || match bind {
        Bind::Tcp(address) => {
            let listener = listen_tcp(*address)?;
            let address = listener.local_addr()?;
            let peer = |socket: &TcpStream| socket.peer_addr().ok();
            let http = http!(TcpStream, peer);
            let socket = listener.try_clone()?.into();
            let serve_here = serve_here!(http, std::net::TcpStream, TcpStream);
            let server = builder.listen("tcp", listener, http)?.run();
            Ok((server, Some(address), socket, serve_here))
        }
        Bind::Unix(path) => {
            let peer = |_: &UnixStream| None;
            let listener = listen_unix(path, socket_mode)?;
            let http = http!(UnixStream, peer);
            let socket = listener.try_clone()?.into();
            let serve_here = serve_here!(http, std::os::unix::net::UnixStream, UnixStream);
            let server = builder.listen_uds("unix", listener, http)?.run();
            Ok((server, None, socket, serve_here))
        }
    };
    let served: io::Result<_> = served();
    let (server, address, socket, serve_here) = served.map_err(|source| StartError::Listen {
        bind: bind.clone(),
        source,
    })?;
    let closer = Closer {
        server: server.handle(),
        socket,
        connections,
        serve_here,
    };
    Ok(Listener {
        server,
        address,
        closer,
    })
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
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

/// Replaces a dead socket. Fails with [`io::ErrorKind::AddrInUse`] if a process listens there, and with
/// [`io::ErrorKind::AlreadyExists`] if the file is not a socket.
fn listen_unix(path: &Path, mode: SocketMode) -> io::Result<UnixListener> {
    // Of two gates that start at once, one must not remove the new socket of the other.
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock = File::options().create(true).append(true).open(lock_path)?;
    lock.lock()?;
    let address = SockAddr::unix(path)?;
    remove_dead(path, &address)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&address)?;
    // Set the mode before listening, so that no unauthorized user can connect.
    fs::set_permissions(path, Permissions::from_mode(mode.bits()))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Removes the socket of a process that exited without removing it.
fn remove_dead(path: &Path, address: &SockAddr) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => {
            let message = "the file exists and is not a socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A socket with a full backlog would block the probe.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}
