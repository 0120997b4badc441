//! A connection to a Redis server.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::try_join3;
/// Its own TLS setting is ignored. [`Dialer`] has one.
pub(super) use redis::ConnectionAddr as Node;
use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, RedisError, RedisFuture,
    RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_util::io::InspectWriter;

use super::errors::{explain, is_refused_connection};
use crate::{
    outbound::secure,
    stores::{fault::Unreachable, hosts::Hosts},
};

pub(super) struct Dialer {
    pub(super) hosts: Hosts,
    pub(super) tls: Option<TlsConnector>,
}

impl Dialer {
    /// Connects to the first address of the node that works.
    pub(super) async fn connect(
        &self,
        node: &Node,
        login: &RedisConnectionInfo,
        within: Duration,
    ) -> Result<Connection, Unreachable> {
        match node {
            Node::Unix(path) => {
                let opening = async {
                    let socket = UnixStream::connect(path).await?;
                    Connection::open(socket, login).await
                };
                match timeout(within, opening).await {
                    Ok(opened) => opened
                        .map_err(|error| Unreachable::failed(node, explain(&error, "the server"))),
                    Err(_) => Err(Unreachable::Timeout(node.to_string())),
                }
            }
            Node::Tcp(host, port) | Node::TcpTls { host, port, .. } => {
                let attempt = async |address, _| {
                    let opened = async {
                        let tcp = TcpStream::connect(address).await?;
                        tcp.set_nodelay(true)?;
                        Connection::open(secure(self.tls.as_ref(), tcp, host).await?, login).await
                    };
                    let mut opened: RedisResult<Connection> = opened.await;
                    let is_closed = opened.as_ref().is_err_and(RedisError::is_io_error);
                    if is_closed && self.tls.is_none() {
                        opened = refusal(address).await.map_or(opened, Err);
                    }
                    opened.map_err(|error| Unreachable::failed(address, explain(&error, host)))
                };
                self.hosts.first_address(host, *port, within, attempt).await
            }
            _ => Err(Unreachable::failed(
                node,
                "this kind of address is not supported",
            )),
        }
    }
}

/// Multiplexed: its clones share the connection, and concurrent commands are sent together.
#[derive(Clone)]
pub(super) struct Connection {
    connection: MultiplexedConnection,
    shared: Arc<Shared>,
    asking: bool,
    /// Aborted when dropped.
    _driver: Arc<JoinSet<()>>,
}

/// By all clones of a connection.
#[derive(Default)]
struct Shared {
    bytes_sent: AtomicU64,
    sends_whole_scripts: AtomicBool,
}

impl Connection {
    async fn open(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        login: &RedisConnectionInfo,
    ) -> RedisResult<Self> {
        let shared = Arc::<Shared>::default();
        let counter = shared.clone();
        let stream = InspectWriter::new(stream, move |bytes: &[u8]| {
            let sent = &counter.bytes_sent;
            sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        });
        // Each operation has its own time limit.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        // `sign_in` sends everything, because the library hides the reason why a server refuses a user.
        let nothing = RedisConnectionInfo::default().set_skip_set_lib_name();
        let opened = MultiplexedConnection::new_with_config(&nothing, stream, config);
        let (connection, run) = opened.await?;
        let mut driver = JoinSet::new();
        driver.spawn_local(run);
        sign_in(&connection, login).await?;
        Ok(Self {
            connection,
            shared,
            asking: false,
            _driver: Arc::new(driver),
        })
    }

    /// If this has not changed since a failed operation began, the server has not seen the operation.
    pub(super) fn bytes_sent(&self) -> u64 {
        self.shared.bytes_sent.load(Ordering::Relaxed)
    }

    /// Whether the server refuses to run scripts by their hash.
    pub(super) fn sends_whole_scripts(&self) -> bool {
        self.shared.sends_whole_scripts.load(Ordering::Relaxed)
    }

    pub(super) fn send_whole_scripts(&self, whole: bool) {
        self.shared
            .sends_whole_scripts
            .store(whole, Ordering::Relaxed);
    }

    /// Sends `ASKING` before each command. While a key migrates to another cluster node, the new node accepts commands
    /// on it only after `ASKING`.
    pub(super) fn asking(self) -> Self {
        Self {
            asking: true,
            ..self
        }
    }
}

/// Why a server closes each new connection, for example because it has too many clients. It says so at once, but the
/// answer is lost if a command is sent meanwhile.
async fn refusal(address: SocketAddr) -> Option<RedisError> {
    let answered = timeout(REFUSAL_TIME, async {
        let mut answer = [0; 512];
        let length = TcpStream::connect(address).await?.read(&mut answer).await?;
        io::Result::Ok(answer.get(..length).unwrap_or_default().to_vec())
    });
    let answer = answered.await.ok()?.ok()?;
    redis::parse_redis_value(&answer)
        .and_then(Value::extract_error)
        .err()
        .filter(is_refused_connection)
}

const REFUSAL_TIME: Duration = Duration::from_millis(100);

/// Sends the password, the database and the name of this program together.
async fn sign_in(
    connection: &MultiplexedConnection,
    login: &RedisConnectionInfo,
) -> RedisResult<()> {
    let (mut first, mut second, mut third) =
        (connection.clone(), connection.clone(), connection.clone());
    let authenticate = async {
        let Some(password) = login.password() else {
            return Ok(());
        };
        let mut command = redis::cmd("AUTH");
        command.arg(login.username()).arg(password);
        command.exec_async(&mut first).await
    };
    let select = async {
        if login.db() == 0 {
            return Ok(());
        }
        let mut command = redis::cmd("SELECT");
        command.arg(login.db()).exec_async(&mut second).await
    };
    // A server that accepts a connection and says nothing is found here, even if there is no password. The user may lack
    // the right, and versions before 7.2 do not know it.
    let greet = async {
        let mut command = redis::cmd("CLIENT");
        command.arg("SETINFO").arg("LIB-NAME").arg("imgwire-gate");
        match command.exec_async(&mut third).await {
            Err(error) if error.code().is_some() && !is_refused_connection(&error) => Ok(()),
            done => done,
        }
    };
    try_join3(authenticate, select, greet).await.map(drop)
}

/// Parses how the node `source` names another node. Without a host, it is on the same host. `?` means unknown.
pub(super) fn parse_node(host: &str, port: u16, source: &Node) -> Option<Node> {
    let host = match (host, source) {
        ("?", _) => return None,
        ("", Node::Tcp(host, _)) => host,
        (host, _) => host,
    };
    let host = host.to_owned();
    Some(Node::Tcp(host, port))
}

pub(super) fn is_broken(error: &RedisError) -> bool {
    error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error()
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        if !self.asking {
            return self.connection.req_packed_command(command);
        }
        let connection = &mut self.connection;
        Box::pin(async move {
            let mut both = Pipeline::new();
            both.cmd("ASKING").add_command(command.clone());
            let answers = connection.req_packed_commands(&both, 0, 2).await?;
            let mut answers = answers.into_iter();
            // If the user may not send it, its error says so.
            answers.next().unwrap_or(Value::Nil).extract_error()?;
            Ok(answers.next().unwrap_or(Value::Nil))
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.connection.req_packed_commands(pipeline, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.connection.get_db()
    }
}
