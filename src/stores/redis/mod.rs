//! Rate limits, quotas and sessions in Redis (6.2 or later) or Valkey, shared by any number of gates.
//!
//! One script on one key decides each reservation, so that a decision is one round trip and also works in a cluster.
//! Keys expire by themselves.
//!
//! - [`store`]: rate limits, quotas and sessions, on a server or a cluster.
//! - [`leases`]: work that one of several gates does.
//! - [`scripts`]: the scripts; [`keys`]: the names of keys.
//! - [`probe`]: tests what the gate needs.
//! - [`eviction`]: whether a server may evict keys, and has restarted.
//! - [`errors`]: what an error of a server means.
//! - [`connection`]: one multiplexed connection per thread.
//! - [`server`]: finds, uses and probes a server; [`sentinel`]: asks Sentinels for it.
//! - [`cluster`]: finds the node that has a key.

mod cluster;
mod connection;
mod errors;
mod eviction;
mod keys;
mod leases;
mod optional_rights;
mod probe;
mod scripts;
mod sentinel;
mod server;
mod store;
mod url;

use std::sync::Arc;

use policies::StoreUse;

use self::{
    store::{RedisStore, Servers},
    url::{Endpoint, RedisUrl, Topology},
};
use super::{
    fault::OpenError,
    kind::{Location, OpenOptions, OpenPorts, StoreKind},
    shared_quotas::SharedQuotas,
    tls::TlsSettings,
};

pub(super) const KIND: StoreKind = StoreKind {
    name: "Redis",
    example: "redis://gate@cache:6379/0",
    uses: &[StoreUse::Quotas, StoreUse::RateLimits, StoreUse::Sessions],
    rights: "allow the user in `url` to read and write the keys `imgwire-gate:*` (or those of its `prefix`) with the \
             commands that docs/scaling.md lists (ACL SETUSER)",
    takes_password: true,
    takes_prefix: true,
    is_opened_once: true,
    parse: |text| {
        let url = RedisUrl::parse(text)?;
        Some(url.map(|url| Arc::new(url) as _).map_err(str::to_owned))
    },
};

impl Location for RedisUrl {
    fn has_sentinels(&self) -> bool {
        matches!(self.topology, Topology::Single(Endpoint::Sentinels { .. }))
    }

    fn has_password(&self) -> bool {
        self.login.password().is_some()
    }

    fn tls(&self) -> Result<TlsSettings, String> {
        match self.is_tls {
            true => Ok(TlsSettings::default()),
            false => Err("needs a URL that begins with `rediss`".to_owned()),
        }
    }

    fn open(&self, options: &OpenOptions<'_>) -> Result<OpenPorts, OpenError> {
        let store = Arc::new(RedisStore::new(self, options));
        let quotas = Arc::new(SharedQuotas(store.clone()));
        Ok(OpenPorts {
            quotas: Some(quotas.clone()),
            time: Some(quotas),
            leases: Some(store.clone()),
            rate_limits: Some(store.clone()),
            sessions: Some(store.clone()),
            ..OpenPorts::none(match &store.servers {
                Servers::Single(server) => Arc::new(server.clone()),
                Servers::Cluster(cluster) => Arc::new(cluster.clone()),
            })
        })
    }
}
