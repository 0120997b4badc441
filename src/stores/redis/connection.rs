//! The connections to Redis: one a thread, which all its requests share.

use std::{rc::Rc, sync::Arc, time::Duration};

use futures_util::future::FutureExt as _;
use policies::StoreName;
use redis::{
    AsyncConnectionConfig, Client, Cmd, Pipeline, RedisFuture, RedisResult, TlsMode, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClientBuilder,
    cluster_async::ClusterConnection,
    io::tcp::TcpSettings,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};

use super::{
    super::health::{Health, Probe},
    RedisFault,
};
use crate::{
    outbound::pem_authorities,
    settings::{
        outbound::ExtraAuthorities,
        redis_url::{RedisUrl, Topology},
    },
    telemetry::{Operation, StoreMetrics},
};

/// What every key begins with.
pub(super) const PREFIX: &str = "imgwire-gate";

/// How often a cluster is asked again within one operation, when it says that a key has moved.
const CLUSTER_RETRIES: u32 = 3;

/// What all threads know of a server.
pub(super) struct Connection {
    url: RedisUrl,
    /// In PEM; the library's own where there are none.
    authorities: Option<Vec<u8>>,
    timeout: Duration,
    pub(super) health: Arc<Health>,
    metrics: StoreMetrics,
}

/// One connection, whatever it leads to. Operations that are under way on one thread share it, and travel together.
#[derive(Clone)]
pub(super) enum Lane {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Lane {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Server(server) => server.req_packed_command(command),
            Self::Cluster(cluster) => cluster.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Server(server) => server.req_packed_commands(pipeline, offset, count),
            Self::Cluster(cluster) => cluster.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Server(server) => server.get_db(),
            Self::Cluster(cluster) => cluster.get_db(),
        }
    }
}

impl Connection {
    pub(super) fn new(
        name: StoreName,
        url: &RedisUrl,
        authorities: &ExtraAuthorities,
        timeout: Duration,
        metrics: StoreMetrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            url: url.clone(),
            authorities: url.is_tls().then(|| pem_authorities(authorities)).flatten(),
            timeout,
            health: Health::new(name),
            metrics,
        })
    }

    /// Finds out whether the server answers.
    pub(super) fn begin(self: &Arc<Self>) {
        self.health.begin(self.probe());
    }

    /// Does one operation, in time or not at all; `what` names it in the metrics. After a failure the server is
    /// left alone until it has been probed.
    pub(super) async fn run<T>(
        self: &Arc<Self>,
        what: Operation,
        operation: impl AsyncFn(&mut Lane) -> RedisResult<T>,
    ) -> Result<T, RedisFault> {
        if !self.health.is_up() {
            return Err(RedisFault::Down);
        }
        let timing = self.metrics.begin(what);
        let attempt = async {
            let connecting = || {
                let connection = self.clone();
                async move { connection.connect().await }.boxed_local()
            };
            let (mut lane, was_kept) = self.health.connection(connecting).await?;
            match operation(&mut lane).await {
                // The server ended it while nobody used it. If what was sent has been counted all the same, it is
                // counted twice, which lets nobody through.
                Err(error)
                    if was_kept && (error.is_io_error() || error.is_connection_dropped()) =>
                {
                    self.health.forget();
                    let (mut lane, _) = self.health.connection(connecting).await?;
                    operation(&mut lane).await
                }
                done => done,
            }
        };
        let result = match tokio::time::timeout(self.timeout, attempt).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(RedisFault::Failed(error)),
            Err(_) => Err(RedisFault::Timeout),
        };
        if result.is_err() {
            self.health.forget();
        }
        timing.end(result.is_ok());
        match &result {
            Ok(_) => self.health.answered(),
            Err(fault) => self.health.is_down(&fault.to_string(), self.probe()),
        }
        result
    }

    fn probe(self: &Arc<Self>) -> Probe {
        let connection = self.clone();
        Rc::new(move || {
            let connection = connection.clone();
            async move { connection.try_it().await }.boxed_local()
        })
    }

    /// Finds out whether the server takes what a gate writes, on a connection of its own; says why not.
    pub(super) async fn try_it(&self) -> Result<(), String> {
        let probe = async {
            let mut lane = self.connect().await?;
            redis::cmd("SET")
                .arg(format!("{PREFIX}:probe"))
                .arg(1)
                .arg("PX")
                .arg(1000)
                .exec_async(&mut lane)
                .await
        };
        let probed = tokio::time::timeout(self.timeout, probe).await;
        probed
            .map_err(|_| RedisFault::Timeout.to_string())?
            .map_err(|error| error.to_string())
    }

    async fn connect(&self) -> RedisResult<Lane> {
        let nodes = self.url.nodes();
        match self.url.topology() {
            Topology::Server => {
                let node = nodes.first().cloned().ok_or_else(no_node)?;
                let node = node.set_tcp_settings(tcp());
                let client = match self.certificates() {
                    Some(certificates) => Client::build_with_tls(node, certificates)?,
                    None => Client::open(node)?,
                };
                self.open(&client).await
            }
            Topology::Sentinel { primary } => {
                let settings = nodes.first().ok_or_else(no_node)?.redis_settings();
                let addresses = nodes.iter().map(|node| node.addr().clone());
                let mut builder =
                    SentinelClientBuilder::new(addresses, primary, SentinelServerType::Master)?
                        .set_client_to_redis_db(settings.db())
                        .set_client_to_redis_tcp_settings(tcp());
                if let Some(user) = settings.username() {
                    builder = builder.set_client_to_redis_username(user);
                }
                if let Some(password) = settings.password() {
                    builder = builder.set_client_to_redis_password(password);
                }
                if self.url.is_tls() {
                    builder = builder
                        .set_client_to_redis_tls_mode(TlsMode::Secure)
                        .set_client_to_sentinel_tls_mode(TlsMode::Secure);
                }
                if let Some(certificates) = self.certificates() {
                    builder = builder
                        .set_client_to_redis_certificates(certificates.clone())
                        .set_client_to_sentinel_certificates(certificates);
                }
                let client = builder.build()?.async_get_client().await?;
                self.open(&client).await
            }
            Topology::Cluster => {
                let mut builder = ClusterClientBuilder::new(nodes.iter().cloned())
                    .connection_timeout(self.timeout)
                    .response_timeout(self.timeout)
                    .retries(CLUSTER_RETRIES)
                    .tcp_settings(tcp());
                if let Some(certificates) = self.certificates() {
                    builder = builder.certs(certificates);
                }
                let cluster = builder.build()?.get_async_connection().await?;
                Ok(Lane::Cluster(cluster))
            }
        }
    }

    async fn open(&self, client: &Client) -> RedisResult<Lane> {
        // Each operation has its own time.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(None);
        let server = client.get_multiplexed_async_connection_with_config(&config);
        Ok(Lane::Server(server.await?))
    }

    fn certificates(&self) -> Option<redis::TlsCertificates> {
        let root_cert = self.authorities.clone()?;
        Some(redis::TlsCertificates {
            client_tls: None,
            root_cert: Some(root_cert),
        })
    }
}

fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn no_node() -> redis::RedisError {
    (
        redis::ErrorKind::InvalidClientConfig,
        "the URL names no server",
    )
        .into()
}
