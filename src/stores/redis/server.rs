//! Finds, uses and probes one server, or one node of a cluster.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use policies::{Clock, StoreName};
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
    errors::{explain, has_code, is_missing_right},
    eviction::{Observed, ServerInfo, observe_repeatedly},
    keys::Keys,
    optional_rights::{INFO, OptionalRight, ROLE},
    probe::Probe,
    sentinel::{find_primary, sentinel_login},
    url::{Endpoint, RedisUrl},
};
use crate::{
    stores::{connections::ConnectionCache, health::Backend, remark::Remark},
    telemetry::Metrics,
};

/// What all servers of a store share.
pub(super) struct Client {
    pub(super) dialer: Dialer,
    pub(super) login: RedisConnectionInfo,
    sentinel_login: RedisConnectionInfo,
    pub(super) probe: Probe,
    pub(super) keys: Keys,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    store: StoreName,
    /// Rights that the gate can do without, and that the user lacks.
    lacks: Mutex<Vec<&'static OptionalRight>>,
}

impl Client {
    pub(super) fn new(url: &RedisUrl, options: &OpenOptions<'_>, probe: Probe, keys: Keys) -> Self {
        let login = url.login.clone();
        let password = options.password;
        Self {
            dialer: Dialer {
                hosts: Hosts::new(options.context.clock.clone()),
                tls: url.is_tls.then(|| options.tls_config().into()),
            },
            login: match password {
                Some(password) => login.set_password(password.expose_secret()),
                None => login,
            },
            sentinel_login: options.sentinel.map(sentinel_login).unwrap_or_default(),
            probe,
            keys,
            clock: options.context.clock.clone(),
            metrics: options.context.metrics.clone(),
            store: options.name.clone(),
            lacks: Mutex::default(),
        }
    }

    /// Logs it the first time.
    fn record_lack(&self, right: &'static OptionalRight) {
        let mut lacks = self.lacks.lock();
        if lacks.iter().any(|lacked| lacked.name == right.name) {
            return;
        }
        lacks.push(right);
        let OptionalRight {
            name, consequence, ..
        } = right;
        tracing::warn!(store = %self.store, right = name, reason = consequence, "the user lacks an optional right");
    }

    fn record_right(&self, right: &OptionalRight) {
        self.lacks.lock().retain(|lacked| lacked.name != right.name);
    }

    pub(super) fn remarks(&self) -> Vec<Remark> {
        let lacks = self.lacks.lock();
        let remarks = lacks.iter().map(|right| Remark {
            part: "rights",
            text: format!(
                "the user lacks the right {}: {}",
                right.name, right.consequence
            ),
            remedy: Some(right.remedy),
            is_degraded: false,
        });
        remarks.collect()
    }
}

pub(super) struct Server {
    endpoint: Endpoint,
    client: Arc<Client>,
    health: Health,
    connections: ConnectionCache<Connection>,
    /// The prefix of probe keys. In a cluster, its slot is on this node.
    probe_prefix: Mutex<String>,
    observed: Observed,
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
            health,
            connections: ConnectionCache::default(),
            probe_prefix: Mutex::new(client.keys.probe()),
            observed: Observed::default(),
            client,
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

    /// Fails if a server is no longer a primary. If the user may not ask for the role, it passes.
    async fn require_primary(
        &self,
        mut connection: Connection,
        node: &Node,
    ) -> Result<Connection, Unreachable> {
        let role = redis::cmd("ROLE")
            .query_async::<redis::Value>(&mut connection)
            .await;
        let role = match role {
            Ok(redis::Value::Array(role)) => {
                self.client.record_right(&ROLE);
                role.into_iter().next()
            }
            Ok(_) => None,
            Err(error) if is_missing_right(&error) => {
                self.client.record_lack(&ROLE);
                None
            }
            Err(error) => return Err(Unreachable::failed(node, explain(&error, "the server"))),
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

    /// Reads what the server says of itself. A server that is down costs nothing.
    ///
    /// Some proxies close a connection on which they do not know a command, and others never answer it. So until the server
    /// has answered once, this uses a connection of its own.
    pub(super) async fn observe(self: &Arc<Self>) {
        let within = self.health.timeout();
        if !self.observed.has_answered() {
            if self.health.is_up()
                && let Ok(connection) = self.connect(within).await
            {
                self.read_info(connection, within).await;
            }
            return;
        }
        let read = async |connection: &mut _| match ServerInfo::read(connection).await {
            // A user may lack the right, and a provider may not have the command.
            Err(error) if error.code().is_some() => Ok(Err(error)),
            read => read.map(Ok),
        };
        if let Ok(Reply::Done(info)) = self.run(true, false, within, &read).await {
            self.record_info(info);
        }
    }

    async fn read_info(&self, mut connection: Connection, within: Duration) {
        if let Ok(info) = timeout(within, ServerInfo::read(&mut connection)).await {
            self.record_info(info);
        }
    }

    fn record_info(&self, info: RedisResult<ServerInfo>) {
        match info {
            Ok(info) => {
                let client = &self.client;
                client.record_right(&INFO);
                let now = client.clock.elapsed();
                let evicted = self.observed.record(info, &self.health, now);
                client
                    .metrics
                    .store_evicted_keys(client.store.clone())
                    .inc_by(evicted);
            }
            Err(error) if is_missing_right(&error) => self.client.record_lack(&INFO),
            Err(error) => {
                tracing::debug!(store = %self.health.store(), reason = %explain(&error, "the server"), "cannot read INFO");
            }
        }
    }

    pub(super) fn eviction(&self) -> Option<Remark> {
        self.observed.remark()
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
                        let login = &self.client.sentinel_login;
                        find_primary(dialer, login, sentinel, primary, share).await
                    })
                    .await?;
                let connecting = async {
                    let connection = dialer.connect(&node, login, half).await?;
                    self.require_primary(connection, &node).await
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

/// How long a probe waits for what the server says of itself. A store that comes back is used within a second.
const INFO_TIME: Duration = Duration::from_millis(300);

impl Backend for Server {
    fn health(&self) -> &Health {
        &self.health
    }

    async fn probe(self: &Arc<Self>, within: Duration) -> Result<(), StoreFault> {
        let clock = &self.client.clock;
        let ends = clock.elapsed() + within;
        let connection = self.connect(within).await?;
        let prefix = self.probe_prefix.lock().clone();
        let probe = &self.client.probe;
        let probed = probe.run(&connection, &prefix).await;
        if probed.is_ok() {
            // Last and briefly, because a proxy may not answer it. The store works nevertheless.
            let left = ends.saturating_sub(clock.elapsed()) * 9 / 10;
            self.read_info(connection.clone(), left.min(INFO_TIME))
                .await;
        }
        match probed {
            // The node works, but no longer has these keys.
            Err(error) if self.redirect(&error).is_some() => Ok(()),
            Err(error) if is_missing_right(&error) => {
                let pattern = &self.client.keys.prefix;
                let missing = probe.missing_rights(&connection, &prefix, pattern).await;
                let missing = missing.join(" ");
                let fault = explain(&error, "the server");
                Err(StoreFault::Refused(if missing.is_empty() {
                    fault
                } else {
                    format!("the user lacks the rights {missing} ({fault})")
                }))
            }
            Err(error) => Err(fault(&error, false)),
            Ok(()) => Ok(()),
        }
    }

    fn watch(self: &Arc<Self>) {
        observe_repeatedly(self, Self::observe);
    }

    fn remarks(&self) -> Vec<Remark> {
        let eviction = self.observed.remark();
        let rights = self.client.remarks();
        eviction.into_iter().chain(rights).collect()
    }
}

/// Classifies an error of an operation. A server that has become a replica counts as a broken connection, because the
/// primary is elsewhere.
fn fault(error: &RedisError, nothing_was_sent: bool) -> StoreFault {
    let is_replica = has_code(error, "READONLY");
    if is_broken(error) || is_replica {
        if nothing_was_sent && !is_replica {
            StoreFault::Unsent
        } else {
            StoreFault::Broken(explain(error, "the server"))
        }
    } else {
        StoreFault::Refused(explain(error, "the server"))
    }
}
