//! A connection to a Redis server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Its own TLS setting is ignored. [`Dialer`] has one.
pub(super) use redis::ConnectionAddr as Node;
use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, RedisError, RedisFuture,
    RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_util::io::InspectWriter;

use crate::{
    outbound::{reason, secure},
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
                    Ok(opened) => opened.map_err(|error| Unreachable::failed(node, error)),
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
                    let opened: RedisResult<Connection> = opened.await;
                    opened.map_err(|error| Unreachable::failed(address, reason(&error, host)))
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
    bytes_sent: Arc<AtomicU64>,
    asking: bool,
    /// Aborted when dropped.
    _driver: Arc<JoinSet<()>>,
}

impl Connection {
    async fn open(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        login: &RedisConnectionInfo,
    ) -> RedisResult<Self> {
        let bytes_sent = Arc::<AtomicU64>::default();
        let counter = bytes_sent.clone();
        let stream = InspectWriter::new(stream, move |bytes: &[u8]| {
            counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        });
        // Each operation has its own time limit.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let opened = MultiplexedConnection::new_with_config(login, stream, config);
        let (connection, run) = opened.await?;
        let mut driver = JoinSet::new();
        driver.spawn_local(run);
        Ok(Self {
            connection,
            bytes_sent,
            asking: false,
            _driver: Arc::new(driver),
        })
    }

    /// If this has not changed since a failed operation began, the server has not seen the operation.
    pub(super) fn bytes_sent(&self) -> u64 {
        self.bytes_sent.load(Ordering::Relaxed)
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
            let answer = answers.into_iter().next_back();
            Ok(answer.unwrap_or(Value::Nil))
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
