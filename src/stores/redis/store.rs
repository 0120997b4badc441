//! Runs operations on a server or a cluster.

use std::sync::Arc;

use redis::RedisResult;

use super::{
    cluster::Cluster,
    connection::Connection,
    probe::Probe,
    scripts::Scripts,
    server::{Client, Reply, Server},
    url::{RedisUrl, Topology},
};
use crate::{
    stores::{
        backend::Backend as _, fault::StoreFault, health::Health, kind::OpenOptions,
        store_clock::StoreClock,
    },
    telemetry::{Operation, StoreMetrics},
};

pub(super) struct RedisStore {
    pub(super) servers: Servers,
    pub(super) clock: StoreClock,
    pub(super) scripts: Arc<Scripts>,
    metrics: StoreMetrics,
}

pub(super) enum Servers {
    /// Possibly the primary that Sentinels name.
    Single(Arc<Server>),
    Cluster(Arc<Cluster>),
}

impl RedisStore {
    /// Connects on the first operation.
    pub(super) fn new(url: &RedisUrl, options: &OpenOptions<'_>) -> Self {
        let scripts = Arc::<Scripts>::default();
        let clock = StoreClock::new(options.context.clock.clone());
        let probe = Probe {
            scripts: scripts.clone(),
            clock: clock.clone(),
            uses: options.uses.to_vec(),
        };
        let client = Arc::new(Client::new(url, options, probe));
        let servers = match &url.topology {
            Topology::Single(endpoint) => {
                Servers::Single(Server::new(endpoint.clone(), client, options.health()))
            }
            Topology::Cluster(seeds) => {
                Servers::Cluster(Cluster::new(seeds.clone(), client, options))
            }
        };
        Self {
            servers,
            clock,
            scripts,
            metrics: options.metrics("redis"),
        }
    }

    pub(super) fn health(&self) -> &Health {
        match &self.servers {
            Servers::Single(server) => server.health(),
            Servers::Cluster(cluster) => cluster.health(),
        }
    }

    /// Runs one operation within its time limit. In a cluster, the node that has `key` runs it, or any node if there is
    /// no key.
    pub(super) async fn run<T>(
        &self,
        name: Operation,
        key: Option<&str>,
        read_only: bool,
        operation: impl AsyncFn(&mut Connection) -> RedisResult<T>,
    ) -> Result<T, StoreFault> {
        let done = async {
            match &self.servers {
                Servers::Cluster(cluster) => cluster.run(key, read_only, &operation).await,
                Servers::Single(server) => {
                    let within = server.health().timeout();
                    match server.run(read_only, false, within, &operation).await? {
                        Reply::Done(done) => Ok(done),
                        Reply::Redirect(_) => Err(StoreFault::Refused(
                            "the server belongs to a cluster; write `redis+cluster://`".to_owned(),
                        )),
                    }
                }
            }
        };
        self.metrics.measure(name, done).await
    }
}
