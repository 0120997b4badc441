//! How `imgwire-gate health` finds the running gate: a Unix socket that is named after the source of the config, and says
//! where the management listener is.
//!
//! On Linux the socket has an abstract name. So it needs no folder to write to, and the kernel removes it with the
//! process. Elsewhere it is a file in the temporary folder.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{self, Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
};

use crate::{
    config::{ConfigSource, server::Bind, source::TEXT_VARIABLE},
    outbound::reason,
    server::Application,
};

/// The longest address of a management listener, which may be the path of a socket.
const MAX_ADDRESS: u64 = 4096;

const BACKLOG: i32 = 16;

const HINT: &str = "does another gate run with this config? `imgwire-gate health` asks that one";

const RETRY: Duration = Duration::from_secs(1);

/// What a gate runs with, as both processes see it.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Config(ConfigSource),
    /// The demo config of the sandbox.
    Sandbox,
}

impl Source {
    /// The names of the sockets. A file has two: its path as it is written, and its real path. The one stays when a link
    /// is replaced, and the other is the same for all links.
    fn names(&self) -> Vec<PathBuf> {
        let paths = match self {
            Self::Sandbox => return vec![socket_name("sandbox", b"")],
            Self::Config(ConfigSource::Stdin) => return vec![socket_name("stdin", b"")],
            Self::Config(ConfigSource::Environment) => {
                let text = std::env::var_os(TEXT_VARIABLE).unwrap_or_default();
                return vec![socket_name("environment", text.as_bytes())];
            }
            Self::Config(ConfigSource::File(path)) => {
                let written = path::absolute(path).unwrap_or_else(|_| path.clone());
                let real = fs::canonicalize(path).ok().filter(|real| *real != written);
                [Some(written), real]
            }
        };
        let paths = paths.into_iter().flatten();
        paths
            .map(|path| socket_name("file", path.as_os_str().as_bytes()))
            .collect()
    }
}

fn socket_name(kind: &str, source: &[u8]) -> PathBuf {
    // Containers on the network of their host share its abstract names, but not its process ids.
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let parts = [namespace.as_os_str().as_bytes(), kind.as_bytes(), source];
    let digest = digest::digest(&digest::SHA256, &parts.join(&0));
    let digest = URL_SAFE_NO_PAD.encode(digest.as_ref());
    if cfg!(target_os = "linux") {
        // A leading zero byte makes it abstract.
        PathBuf::from(format!("\0imgwire-gate/{digest}"))
    } else {
        std::env::temp_dir().join(format!("imgwire-gate-{digest}"))
    }
}

/// Answers `health` while the gate runs. The gate runs without it if its sockets cannot be opened.
pub(super) fn announce(source: &Source, application: &Application, configured: &Bind) {
    let bind = match (application.management_address(), configured) {
        (Some(address), _) => Bind::Tcp(address),
        (None, Bind::Unix(path)) => {
            Bind::Unix(path::absolute(path).unwrap_or_else(|_| path.clone()))
        }
        (None, Bind::Tcp(address)) => Bind::Tcp(*address),
    };
    for name in source.names() {
        let address = bind.to_string();
        // At once, so that the gate is found as soon as it serves.
        let opened = listen(&name);
        actix_web::rt::spawn(async move {
            let listener = match opened {
                Ok(listener) => listener,
                Err(error) => {
                    let error = reason(&error, "");
                    tracing::warn!(
                        error,
                        hint = HINT,
                        "cannot open the socket for health checks"
                    );
                    open_later(&name).await
                }
            };
            answer(listener, &address).await;
        });
    }
}

/// Waits for a gate with the same config, which may be about to end.
async fn open_later(name: &Path) -> UnixListener {
    loop {
        tokio::time::sleep(RETRY).await;
        if let Ok(listener) = listen(name) {
            return listener;
        }
    }
}

fn listen(name: &Path) -> io::Result<UnixListener> {
    if !cfg!(target_os = "linux") && std::os::unix::net::UnixStream::connect(name).is_err() {
        // The socket of a gate that was killed.
        let _ = fs::remove_file(name);
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(name)?)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket.into())
}

async fn answer(listener: UnixListener, address: &str) {
    loop {
        match listener.accept().await {
            // It fits into the socket's buffer, so it does not wait for the client.
            Ok((mut client, _)) => _ = client.write_all(address.as_bytes()).await,
            // For example if no file descriptor is left.
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

/// Asks the gate that runs with the config of this source where its management listener is.
pub(super) async fn find(source: &Source) -> Option<Bind> {
    for name in source.names() {
        if let Ok(address) = ask(&name).await
            && let Ok(bind) = Bind::try_from(address)
        {
            return Some(bind);
        }
    }
    None
}

async fn ask(name: &Path) -> io::Result<String> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(name)?)?;
    let stream = UnixStream::from_std(socket.into())?;
    let mut address = String::new();
    stream
        .take(MAX_ADDRESS)
        .read_to_string(&mut address)
        .await?;
    Ok(address)
}
