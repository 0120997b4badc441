//! Finds, uses and probes one server, or one node of a cluster.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use redis::{ErrorKind, RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind};
use secrecy::ExposeSecret as _;
use tokio::time::timeout;

use super::{
    super::{
        fault::{StoreFault, Unreachable},
        health::Health,
        hosts::Hosts,
        kind::OpenOptions,
    },
    connection::{Connection, Dialer, Node, is_broken, parse_node},
    scripts::{PREFIX, Probe},
    url::{Endpoint, RedisUrl},
};
use crate::{
    outbound::reason,
    stores::{connections::ConnectionCache, health::Backend},
};

/// What all servers of a store share.
pub(super) struct Client {
    pub(super) dialer: Dialer,
    pub(super) login: RedisConnectionInfo,
    pub(super) probe: Probe,
}

impl Client {
    pub(super) fn new(url: &RedisUrl, options: &OpenOptions<'_>, probe: Probe) -> Self {
        let login = url.login.clone();
        let password = options.password;
        Self {
            dialer: Dialer {
                hosts: Hosts::new(options.context.clock.clone()),
                tls: url.is_tls.then(|| options.context.tls.clone().into()),
            },
            login: match password {
                Some(password) => login.set_password(password.expose_secret()),
                None => login,
            },
            probe,
        }
    }
}

pub(super) struct Server {
    endpoint: Endpoint,
    client: Arc<Client>,
    health: Health,
    connections: ConnectionCache<Connection>,
    /// The prefix of probe keys. In a cluster, its slot is on this node.
    probe_prefix: Mutex<String>,
}

/// The result of an operation that reached a server.
pub(super) enum Reply<T> {
    Done(T),
    /// Another node of the cluster has the key. The operation had no effect.
    Redirect(Redirect),
}

pub(super) struct Redirect {
    pub(super) node: Node,
    /// Whether the node accepts the commands only after `ASKING`.
    pub(super) asking: bool,
}

impl Server {
    pub(super) fn new(endpoint: Endpoint, client: Arc<Client>, health: Health) -> Arc<Self> {
        Arc::new(Self {
            endpoint,
            client,
            health,
            connections: ConnectionCache::default(),
            probe_prefix: Mutex::new(format!("{PREFIX}:probe")),
        })
    }

    /// `None` if only the Sentinels know it.
    pub(super) fn node(&self) -> Option<&Node> {
        match &self.endpoint {
            Endpoint::Node(node) => Some(node),
            Endpoint::Sentinels { .. } => None,
        }
    }

    pub(super) fn set_probe_prefix(&self, prefix: String) {
        *self.probe_prefix.lock() = prefix;
    }

    /// Runs one operation within its time limit.
    pub(super) async fn run<T>(
        self: &Arc<Self>,
        read_only: bool,
        asking: bool,
        within: Duration,
        operation: &impl AsyncFn(&mut Connection) -> RedisResult<T>,
    ) -> Result<Reply<T>, StoreFault> {
        // Shorter than the operation's limit, because this error names the host.
        let connect = async || self.connect(within * 9 / 10).await;
        let run = async |connection: Connection| {
            let mut connection = if asking {
                connection.asking()
            } else {
                connection
            };
            let before = connection.bytes_sent();
            match operation(&mut connection).await {
                Ok(done) => Ok(Reply::Done(done)),
                Err(error) => match self.redirect(&error) {
                    Some(redirect) => Ok(Reply::Redirect(redirect)),
                    None => Err(fault(&error, connection.bytes_sent() == before)),
                },
            }
        };
        self.connections
            .run(self, within, read_only, connect, run)
            .await
    }

    fn redirect(&self, error: &RedisError) -> Option<Redirect> {
        let (address, _) = error.redirect_node()?;
        let (host, port) = address.rsplit_once(':')?;
        Some(Redirect {
            node: parse_node(host, port.parse().ok()?, self.node()?)?,
            asking: error.kind() == ErrorKind::Server(ServerErrorKind::Ask),
        })
    }

    async fn connect(&self, within: Duration) -> Result<Connection, Unreachable> {
        let Client { dialer, login, .. } = &*self.client;
        match &self.endpoint {
            Endpoint::Node(node) => dialer.connect(node, login, within).await,
            Endpoint::Sentinels { sentinels, primary } => {
                // Half of the time is for the primary.
                let half = within / 2;
                let (sentinel, node) = dialer
                    .hosts
                    .first(sentinels, half, async |sentinel, share| {
                        find_primary(dialer, sentinel, primary, share).await
                    })
                    .await?;
                let connecting = async {
                    let connection = dialer.connect(&node, login, half).await?;
                    require_primary(connection, &node).await
                };
                let connected = timeout(half, connecting).await;
                let connected = connected.unwrap_or(Err(Unreachable::Timeout(node.to_string())));
                if connected.is_err() {
                    // Another Sentinel may know another primary.
                    dialer.hosts.record_failure(sentinel.to_string());
                }
                connected
            }
        }
    }
}

impl Backend for Server {
    fn health(&self) -> &Health {
        &self.health
    }

    async fn probe(self: &Arc<Self>, within: Duration) -> Result<(), StoreFault> {
        let connection = self.connect(within).await?;
        let prefix = self.probe_prefix.lock().clone();
        match self.client.probe.run(&connection, &prefix).await {
            // The node works, but no longer has these keys.
            Err(error) if self.redirect(&error).is_some() => Ok(()),
            Err(error) => Err(fault(&error, false)),
            Ok(()) => Ok(()),
        }
    }
}

async fn find_primary<'a>(
    dialer: &Dialer,
    sentinel: &'a Node,
    primary: &str,
    within: Duration,
) -> Result<(&'a Node, Node), Unreachable> {
    let login = RedisConnectionInfo::default();
    let mut connection = dialer.connect(sentinel, &login, within).await?;
    let mut query = redis::cmd("SENTINEL");
    query.arg("get-master-addr-by-name").arg(primary);
    let found = query
        .query_async::<Option<(String, u16)>>(&mut connection)
        .await;
    match found.map_err(|error| Unreachable::failed(sentinel, error))? {
        Some((host, port)) => Ok((sentinel, Node::Tcp(host, port))),
        None => Err(Unreachable::failed(
            sentinel,
            format!("unknown primary {primary:?}"),
        )),
    }
}

/// Fails if a server is no longer a primary. If the user may not ask for the role, it passes.
async fn require_primary(
    mut connection: Connection,
    node: &Node,
) -> Result<Connection, Unreachable> {
    let role = redis::cmd("ROLE")
        .query_async::<redis::Value>(&mut connection)
        .await;
    let role = match role {
        Ok(redis::Value::Array(role)) => role.into_iter().next(),
        Ok(_) => None,
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => None,
        Err(error) => return Err(Unreachable::failed(node, error)),
    };
    let role = role.and_then(|role| redis::from_redis_value::<String>(role).ok());
    match role.as_deref() {
        None | Some("master") => Ok(connection),
        Some(role) => Err(Unreachable::failed(
            node,
            format!("expected a primary, found the role {role:?}"),
        )),
    }
}

/// Classifies an error of an operation. A server that has become a replica counts as a broken connection, because the
/// primary is elsewhere.
fn fault(error: &RedisError, nothing_was_sent: bool) -> StoreFault {
    // Versions before 7 have READONLY inside the error of a script.
    let is_replica = error.to_string().contains("READONLY");
    if is_broken(error) || is_replica {
        if nothing_was_sent && !is_replica {
            StoreFault::Unsent
        } else {
            StoreFault::Broken(reason(error, "the server"))
        }
    } else {
        StoreFault::Refused(error.to_string())
    }
}
