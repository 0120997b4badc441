//! Rate limits, quotas and sessions in Redis (6.2 or later) or Valkey, shared by any number of gates.
//!
//! One script on one key decides each reservation, so that a decision is one round trip and also works in a cluster.
//! Keys expire by themselves.
//!
//! - [`store`]: runs operations on a server or a cluster.
//! - [`connection`]: one multiplexed connection per thread.
//! - [`server`]: finds, uses and probes a server.
//! - [`cluster`] and [`slots`]: find the node that has a key.
//! - [`leases`]: work that one gate does.
//! - [`limits`]: GCRA by the server's clock.
//! - [`quotas`]: units that are reserved and given back.
//! - [`sessions`]: the states of sessions.

mod cluster;
mod connection;
mod keys;
mod leases;
mod limits;
mod probe;
mod quotas;
mod scripts;
mod server;
mod sessions;
mod slots;
mod store;
mod url;

use std::sync::Arc;

use policies::StoreUse;

use self::{
    store::{RedisStore, Servers},
    url::RedisUrl,
};
use super::{
    fault::OpenError,
    kind::{Location, OpenOptions, StoreKind},
    ports::{HealthCheck, OpenPorts, Port},
    shared_quotas::SharedQuotas,
};

pub(super) const KIND: StoreKind = StoreKind {
    name: "Redis",
    example: "redis://gate@cache:6379/0",
    uses: &[StoreUse::Quotas, StoreUse::RateLimits, StoreUse::Sessions],
    rights: "allow the user in `url` to read and write the keys `imgwire-gate:*` with the commands that \
             docs/scaling.md lists (ACL SETUSER)",
    takes_password: true,
    is_opened_once: true,
    parse: |text| Some(RedisUrl::parse(text)?.map(|url| Arc::new(url) as _)),
};

impl Location for RedisUrl {
    fn open(&self, options: &OpenOptions<'_>) -> Result<OpenPorts, OpenError> {
        let store = Arc::new(RedisStore::new(self, options));
        let ports = options.uses.iter().filter_map(|wanted| match wanted {
            StoreUse::Quotas => Some(Port::Quotas(Arc::new(SharedQuotas(store.clone())))),
            StoreUse::RateLimits => Some(Port::RateLimits(store.clone())),
            StoreUse::Sessions => Some(Port::Sessions(store.clone())),
            StoreUse::Memberships => None,
        });
        let health: Arc<dyn HealthCheck> = match &store.servers {
            Servers::Single(server) => Arc::new(server.clone()),
            Servers::Cluster(cluster) => Arc::new(cluster.clone()),
        };
        let shared = [
            Port::Leases(store.clone()),
            Port::Time(Arc::new(SharedQuotas(store.clone()))),
        ];
        Ok(OpenPorts {
            ports: ports.chain(shared).collect(),
            health,
        })
    }
}
