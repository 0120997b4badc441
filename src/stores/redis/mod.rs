//! Rate limits, quotas and sessions in Redis (6.2 or later) or Valkey, shared by any number of gates.
//!
//! One script on one key decides each reservation, so that each decision is one round trip and works in a cluster, too.
//! Keys are prefixed and hashed, so that they do not reveal who uploads. They expire by themselves.
//!
//! - [`url`]: how a URL is read.
//! - [`connection`]: one multiplexed connection per thread.
//! - [`server`]: how a server is found, used and probed.
//! - [`cluster`] and [`slots`]: which node has a key.
//! - [`trial`]: what a probe does.
//! - [`limits`]: GCRA by the server's clock.
//! - [`quotas`]: units that are reserved and given back.
//! - [`sessions`]: the states of sessions.

mod cluster;
mod connection;
mod limits;
mod quotas;
mod server;
mod sessions;
mod slots;
mod trial;
mod url;

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use policies::{Counter, StoreUse};
use redis::RedisResult;

use self::{
    cluster::Cluster,
    connection::Lane,
    server::{Access, Reply, Server},
    trial::Trial,
    url::{Named, RedisUrl},
};
use super::{
    backend::{Backend as _, Probe},
    fault::{OpenError, StoreFault},
    health::Health,
    kind::{Location, Opening, StoreKind},
    open::{Part, Port},
    shared_quotas::SharedQuotas,
    store_clock::StoreClock,
};
use crate::{
    outbound::digest::digest_of,
    telemetry::{Operation, StoreMetrics},
};

const PREFIX: &str = "imgwire-gate";

pub(super) const KIND: StoreKind = StoreKind {
    name: "Redis",
    example: "redis://gate@cache:6379/0",
    uses: &[StoreUse::Quotas, StoreUse::RateLimits, StoreUse::Sessions],
    takes_password: true,
    is_opened_once: true,
    parse: |text| Some(RedisUrl::parse(text)?.map(|url| Arc::new(url) as _)),
};

impl Location for RedisUrl {
    fn open(&self, opening: &Opening<'_>) -> Result<Part, OpenError> {
        let store = Arc::new(RedisStore::new(self, opening));
        let ports: Vec<_> = opening
            .uses
            .iter()
            .filter_map(|wanted| match wanted {
                StoreUse::Quotas => Some(Port::Quotas(Arc::new(SharedQuotas(store.clone())))),
                StoreUse::RateLimits => Some(Port::RateLimits(store.clone())),
                StoreUse::Sessions => Some(Port::Sessions(store.clone())),
                StoreUse::Memberships => None,
            })
            .collect();
        let probe: Arc<dyn Probe> = match &store.servers {
            Servers::One(server) => Arc::new(server.clone()),
            Servers::Cluster(cluster) => Arc::new(cluster.clone()),
        };
        Ok(Part { probe, ports })
    }
}

/// A server, a cluster, or the primary that Sentinels name.
struct RedisStore {
    servers: Servers,
    clock: StoreClock,
    scripts: Arc<Scripts>,
    metrics: StoreMetrics,
}

enum Servers {
    One(Arc<Server>),
    Cluster(Arc<Cluster>),
}

struct Scripts {
    limit: redis::Script,
    reserve: redis::Script,
    give_back: redis::Script,
}

impl RedisStore {
    /// Connects on the first operation.
    fn new(url: &RedisUrl, opening: &Opening<'_>) -> Self {
        let scripts = Arc::new(Scripts {
            limit: redis::Script::new(include_str!("limit.lua")),
            reserve: redis::Script::new(include_str!("reserve.lua")),
            give_back: redis::Script::new(include_str!("give_back.lua")),
        });
        let clock = StoreClock::new(opening.surroundings.clock.clone());
        let trial = Trial {
            scripts: scripts.clone(),
            clock: clock.clone(),
            uses: opening.uses.to_vec(),
        };
        let access = Arc::new(Access::new(url, opening, trial));
        let servers = match &url.named {
            Named::Server(found) => {
                Servers::One(Server::new(found.clone(), access, opening.health()))
            }
            Named::Cluster(seeds) => Servers::Cluster(Cluster::new(seeds.clone(), access, opening)),
        };
        Self {
            servers,
            clock,
            scripts,
            metrics: opening.metrics(),
        }
    }

    fn health(&self) -> &Health {
        match &self.servers {
            Servers::One(server) => server.health(),
            Servers::Cluster(cluster) => cluster.health(),
        }
    }

    /// Runs one operation within its time limit. Any node can do it if it has no key.
    async fn ask<T>(
        &self,
        what: Operation,
        key: Option<&str>,
        only_reads: bool,
        operation: impl AsyncFn(&mut Lane) -> RedisResult<T>,
    ) -> Result<T, StoreFault> {
        let work = async {
            match &self.servers {
                Servers::Cluster(cluster) => cluster.ask(key, only_reads, &operation).await,
                Servers::One(server) => {
                    let within = server.health().timeout();
                    let reply = server.ask(only_reads, false, within, &operation).await;
                    reply.and_then(|reply| match reply {
                        Reply::Done(done) => Ok(done),
                        Reply::Elsewhere(_) => Err(StoreFault::Refused(
                            "it is a node of a cluster; write `redis+cluster://`".to_owned(),
                        )),
                    })
                }
            }
        };
        self.metrics.measure(what, work).await
    }
}

/// The key of a counter: the policy's name, so that an operator can find it, and a hash of the rest.
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
