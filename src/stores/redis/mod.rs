//! Rate limits, quotas and sessions in Redis (6.2 or later) or Valkey, shared by any number of gates.
//!
//! Whatever is counted is decided by one script on one key, so that each decision is one round trip and works in a
//! cluster, too. Keys are prefixed and hashed: who uploads is not to be read off them. They expire by themselves.
//!
//! - [`connection`]: one multiplexed connection a thread, made anew when it breaks.
//! - [`limits`]: GCRA by the server's clock.
//! - [`quotas`]: units that are reserved and given back.
//! - [`sessions`]: what actix-session keeps.

mod connection;
mod limits;
mod quotas;
mod sessions;

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use policies::{Clock, Counter, Fault, StoreName};

use self::connection::Connection;
use super::{Store, Trying, store_clock::StoreClock};
use crate::{
    digest::digest_of, settings::outbound::ExtraAuthorities, settings::redis_url::RedisUrl,
    telemetry::StoreMetrics,
};

/// A server, a cluster, or whatever a Sentinel says is the primary.
#[derive(Clone)]
pub struct RedisStore {
    name: StoreName,
    connection: Arc<Connection>,
    clock: StoreClock,
    scripts: Arc<Scripts>,
}

struct Scripts {
    limit: redis::Script,
    reserve: redis::Script,
    give_back: redis::Script,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum RedisFault {
    #[error("it is down, and is probed")]
    Down,
    #[error("it did not answer in time")]
    Timeout,
    #[error("{0}")]
    Failed(#[from] redis::RedisError),
    #[error("an answer cannot be read: {0}")]
    Nonsense(String),
}

impl RedisStore {
    /// Connects when it is asked, or told to [begin](Store::begin). `timeout` bounds each operation.
    #[must_use]
    pub fn new(
        name: StoreName,
        url: &RedisUrl,
        authorities: &ExtraAuthorities,
        timeout: Duration,
        clock: Arc<dyn Clock>,
        metrics: StoreMetrics,
    ) -> Self {
        Self {
            name: name.clone(),
            connection: Connection::new(name, url, authorities, timeout, metrics),
            clock: StoreClock::new(clock),
            scripts: Arc::new(Scripts {
                limit: redis::Script::new(include_str!("limit.lua")),
                reserve: redis::Script::new(include_str!("reserve.lua")),
                give_back: redis::Script::new(include_str!("give_back.lua")),
            }),
        }
    }

    fn fault(&self, source: RedisFault) -> Fault {
        Fault::Store {
            store: self.name.clone(),
            source: Box::new(source),
        }
    }
}

impl Store for RedisStore {
    fn is_healthy(&self) -> bool {
        self.connection.health.is_ready()
    }

    fn begin(&self) {
        self.connection.begin();
    }

    fn try_it(&self) -> Trying<'_> {
        Box::pin(self.connection.try_it())
    }
}

/// The key of a counter: its policy by name, for an operator who looks; the rest hashed.
fn key(what: &str, counter: &Counter) -> String {
    format!(
        "{}:{what}:{}:{}",
        connection::PREFIX,
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
