//! Rate limits, quotas and sessions in Redis (6.2 or later) or Valkey, shared by any number of gates.
//!
//! Whatever is counted is decided by one script on one key, so that each decision is one round trip and works in a
//! cluster, too. Keys are prefixed and hashed: who uploads is not to be read off them. They expire by themselves.
//!
//! - [`connection`]: one multiplexed connection a thread.
//! - [`server`]: how a server is found, asked and probed.
//! - [`cluster`] and [`slots`]: which node is asked.
//! - [`trial`]: what a probe asks.
//! - [`limits`]: GCRA by the server's clock.
//! - [`quotas`]: units that are reserved and given back.
//! - [`sessions`]: what actix-session keeps.

mod cluster;
mod connection;
mod limits;
mod quotas;
mod server;
mod sessions;
mod slots;
mod trial;

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use policies::{Clock, Counter, Fault, StoreName};
use redis::RedisResult;
use rustls::ClientConfig;

pub use self::trial::RedisUses;
use self::{
    cluster::Cluster,
    connection::{Dialer, Lane, Node},
    server::{Access, Found, Reply, Server},
    trial::Trial,
};
use super::{
    Store, Trying,
    backend::{Backend as _, probe_in_time},
    fault::StoreFault,
    health::Health,
    hosts::Hosts,
    store_clock::StoreClock,
};
use crate::{
    digest::digest_of,
    settings::redis_url::{RedisUrl, Topology},
    telemetry::{Operation, StoreMetrics},
};

/// What every key begins with.
const PREFIX: &str = "imgwire-gate";

/// A server, a cluster, or whatever the Sentinels say is the primary.
#[derive(Clone)]
pub struct RedisStore {
    name: StoreName,
    servers: Servers,
    timeout: Duration,
    clock: StoreClock,
    scripts: Arc<Scripts>,
    metrics: StoreMetrics,
}

#[derive(Clone)]
enum Servers {
    One(Arc<Server>),
    Cluster(Arc<Cluster>),
}

struct Scripts {
    limit: redis::Script,
    reserve: redis::Script,
    give_back: redis::Script,
}

/// What matters of an operation before it is sent.
struct Asked<'a> {
    /// Its name in the metrics.
    operation: Operation,
    /// The key that it is about; any node can do it if there is none.
    key: Option<&'a str>,
    only_reads: bool,
}

impl<'a> Asked<'a> {
    /// An operation that only reads.
    fn reads(operation: Operation, key: &'a str) -> Self {
        Self {
            operation,
            key: Some(key),
            only_reads: true,
        }
    }

    /// An operation that changes something.
    fn changes(operation: Operation, key: &'a str) -> Self {
        Self {
            only_reads: false,
            ..Self::reads(operation, key)
        }
    }
}

impl RedisStore {
    /// Connects when it is asked, or told to [begin](Store::begin). `timeout` bounds each operation, and probes try
    /// what it is used for.
    #[must_use]
    pub fn new(
        name: StoreName,
        url: &RedisUrl,
        uses: RedisUses,
        tls: &Arc<ClientConfig>,
        timeout: Duration,
        clock: Arc<dyn Clock>,
        metrics: StoreMetrics,
    ) -> Self {
        let scripts = Arc::new(Scripts {
            limit: redis::Script::new(include_str!("limit.lua")),
            reserve: redis::Script::new(include_str!("reserve.lua")),
            give_back: redis::Script::new(include_str!("give_back.lua")),
        });
        let store_clock = StoreClock::new(clock.clone());
        let access = Arc::new(Access {
            dialer: Dialer {
                hosts: Hosts::new(clock.clone()),
                tls: url.is_tls().then(|| tls.clone().into()),
            },
            login: url.login(),
            trial: Trial {
                scripts: scripts.clone(),
                clock: store_clock.clone(),
                uses,
            },
        });
        let mut nodes = url.addresses().map(Node::from);
        let one = |found| {
            let health = Health::new(name.clone(), timeout, clock.clone());
            Servers::One(Server::new(found, access.clone(), health))
        };
        let servers = match (url.topology(), nodes.next()) {
            (Topology::Server, Some(node)) => one(Found::At(node)),
            (Topology::Sentinel { primary }, first) => one(Found::BySentinels {
                sentinels: first.into_iter().chain(nodes).collect(),
                primary: primary.clone(),
            }),
            (_, first) => {
                let seeds = first.into_iter().chain(nodes).collect();
                let access = access.clone();
                Servers::Cluster(Cluster::new(name.clone(), seeds, access, timeout, clock))
            }
        };
        Self {
            name,
            servers,
            timeout,
            clock: store_clock,
            scripts,
            metrics,
        }
    }

    /// Does one operation, in time or not at all.
    async fn ask<T>(
        &self,
        asked: Asked<'_>,
        operation: impl AsyncFn(&mut Lane) -> RedisResult<T>,
    ) -> Result<T, StoreFault> {
        let Asked {
            key, only_reads, ..
        } = asked;
        let timing = self.metrics.begin(asked.operation);
        let done = match &self.servers {
            Servers::Cluster(cluster) => cluster.ask(key, only_reads, &operation).await,
            Servers::One(server) => {
                let reply = server
                    .ask(only_reads, false, self.timeout, &operation)
                    .await;
                reply.and_then(|reply| match reply {
                    Reply::Done(done) => Ok(done),
                    Reply::Elsewhere(_) => Err(StoreFault::Refused(
                        "it is a node of a cluster; write `redis+cluster://`".to_owned(),
                    )),
                })
            }
        };
        timing.end(done.is_ok());
        done
    }

    fn fault(&self, source: StoreFault) -> Fault {
        Fault::Store {
            store: self.name.clone(),
            source: Box::new(source),
        }
    }
}

impl Store for RedisStore {
    fn is_healthy(&self) -> bool {
        match &self.servers {
            Servers::One(server) => server.health().is_ready(),
            Servers::Cluster(cluster) => cluster.health().is_ready(),
        }
    }

    fn begin(&self) {
        match &self.servers {
            Servers::One(server) => server.begin(),
            Servers::Cluster(cluster) => cluster.begin(),
        }
    }

    fn try_it(&self) -> Trying<'_> {
        Box::pin(async {
            let tried = match &self.servers {
                Servers::One(server) => probe_in_time(server, self.timeout).await,
                Servers::Cluster(cluster) => probe_in_time(cluster, self.timeout).await,
            };
            tried.map_err(|fault| fault.to_string())
        })
    }
}

/// The key of a counter: its policy by name, for an operator who looks; the rest hashed.
fn key(what: &str, counter: &Counter) -> String {
    format!(
        "{PREFIX}:{what}:{}:{}",
        counter.policy,
        hashed(counter.key.as_bytes())
    )
}

/// Half of a SHA-256, in base64url.
fn hashed(bytes: &[u8]) -> String {
    let digest = digest_of(bytes);
    let (half, _) = digest.split_at(16);
    URL_SAFE_NO_PAD.encode(half)
}
