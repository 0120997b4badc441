//! Where counters are kept and memberships looked up: backends behind the ports that `policies` declares, chosen by
//! URL.

mod backend;
mod fault;
mod health;
mod hosts;
mod kept;
mod look;
mod members;
mod owned_task;
mod pool;
mod postgres;
mod redis;
mod retention;
mod sqlite;
mod store_clock;

use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use policies::{Clock, QuotaStore, RateLimitStore, StoreName, StoreUse};
use rustls::ClientConfig;

pub use self::{
    fault::{StoreFault, Unreachable},
    members::{MemberDatabase, MemberRow},
    postgres::PostgresStore,
    redis::{RedisStore, RedisUses},
    sqlite::{OpenError, SqliteStore},
};
use self::{postgres::PostgresMembers, sqlite::SqliteMembers};
use crate::{
    settings::{Settings, StoreSettings, stores::StoreUrl},
    telemetry::Metrics,
};

/// A store, opened for what the policies use it for.
#[derive(Clone)]
pub struct OpenStore {
    /// Its name.
    pub name: StoreName,
    settings: StoreSettings,
    quotas: Option<Arc<dyn Store>>,
    /// With what it is used for, which its probes try.
    redis: Option<(RedisUses, RedisStore)>,
    memberships: Option<Arc<dyn MemberDatabase>>,
}

/// A store that counts, whatever its backend.
pub trait Store: QuotaStore {
    /// Whether it is known to work; one that does not is probed until it does.
    fn is_healthy(&self) -> bool;

    /// Finds out beside everything else whether it works, where that is not known from opening it.
    fn begin(&self) {}

    /// Finds out whether it can be used; says why not.
    fn try_it(&self) -> Trying<'_>;
}

/// The answer of [`Store::try_it`], in the making.
pub type Trying<'a> = LocalBoxFuture<'a, Result<(), String>>;

/// What stores are opened with.
pub struct Surroundings {
    /// How servers are reached by TLS.
    pub tls: Arc<ClientConfig>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Why a store is not opened.
#[derive(Debug, thiserror::Error)]
#[error("store `{name}`: {source}")]
pub struct StoreError {
    /// Which store.
    pub name: StoreName,
    /// Why not.
    pub source: OpenError,
}

impl OpenStore {
    /// Where quotas are counted, if it was opened for that.
    #[must_use]
    pub fn quotas(&self) -> Option<Arc<dyn QuotaStore>> {
        let store = self.quotas.clone()?;
        Some(store)
    }

    /// Where rate limits are counted, if it was opened for that.
    #[must_use]
    pub fn rate_limits(&self) -> Option<Arc<dyn RateLimitStore>> {
        let (_, store) = self.redis.clone()?;
        Some(Arc::new(store))
    }

    /// Where sessions are kept, if it was opened for that.
    #[must_use]
    pub fn sessions(&self) -> Option<RedisStore> {
        self.redis.clone().map(|(_, store)| store)
    }

    /// Where memberships are looked up, if it was opened for that.
    #[must_use]
    pub fn memberships(&self) -> Option<Arc<dyn MemberDatabase>> {
        self.memberships.clone()
    }

    /// Finds out whether it can be used for what it is opened for; says why not.
    ///
    /// # Errors
    ///
    /// What its backend says.
    pub async fn try_it(&self) -> Result<(), String> {
        if let Some(store) = &self.quotas {
            store.try_it().await?;
        }
        match &self.redis {
            Some((_, redis)) => redis.try_it().await,
            None => Ok(()),
        }
    }

    /// Whether everything that it is used for works.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        let quotas = self.quotas.as_ref();
        let memberships = self.memberships.as_ref();
        let redis = self.redis.as_ref();
        quotas.is_none_or(|store| store.is_healthy())
            && redis.is_none_or(|(_, redis)| redis.is_healthy())
            && memberships.is_none_or(|database| database.is_healthy())
    }
}

/// Opens the stores that the policies and the session use. Those of `earlier` which are where they were stay open,
/// with the timeout that they were opened with. Servers are connected to beside everything else, so that a gate
/// starts without them.
///
/// # Errors
///
/// What keeps the first that fails from being opened.
pub fn open(
    settings: &Settings,
    surroundings: &Surroundings,
    earlier: &[OpenStore],
) -> Result<Vec<OpenStore>, StoreError> {
    let stores = settings.stores.iter();
    stores
        .map(|(name, store)| {
            let same = |open: &&OpenStore| open.settings.url == store.url;
            let earlier = earlier.iter().find(|open| open.name == *name).filter(same);
            open_one(settings, name, store, surroundings, earlier).map_err(|source| StoreError {
                name: name.clone(),
                source,
            })
        })
        .collect()
}

fn open_one(
    settings: &Settings,
    name: &StoreName,
    store: &StoreSettings,
    surroundings: &Surroundings,
    earlier: Option<&OpenStore>,
) -> Result<OpenStore, OpenError> {
    let timeout = store.timeout.get();
    let uses = RedisUses {
        limits: settings.uses(name, StoreUse::RateLimits),
        quotas: settings.uses(name, StoreUse::Quotas),
        sessions: settings.uses(name, StoreUse::Sessions),
    };
    let counts = uses.quotas;
    // A Redis that is used for something else than before is opened again: its probes try other things.
    let is_used_otherwise = |open: &&OpenStore| {
        let redis = open.redis.as_ref();
        redis.is_some_and(|(earlier, _)| *earlier != uses)
    };
    let earlier = earlier.filter(|open| !is_used_otherwise(open));
    let redis = match &store.url {
        StoreUrl::Redis(url) if uses != RedisUses::default() => {
            let open = earlier.and_then(|open| open.redis.clone());
            Some(open.unwrap_or_else(|| {
                let redis = RedisStore::new(
                    name.clone(),
                    url,
                    uses,
                    &surroundings.tls,
                    timeout,
                    surroundings.clock.clone(),
                    surroundings.metrics.store(name, &surroundings.clock),
                );
                redis.begin();
                (uses, redis)
            }))
        }
        _ => None,
    };
    let quotas = if !counts {
        None
    } else if let Some(quotas) = earlier.and_then(|open| open.quotas.clone()) {
        Some(quotas)
    } else {
        let quotas: Arc<dyn Store> = match (&store.url, &redis) {
            (StoreUrl::Sqlite(path), _) => {
                let clock = surroundings.clock.clone();
                Arc::new(SqliteStore::open(name.clone(), path, timeout, clock)?)
            }
            (StoreUrl::Postgres(config), _) => Arc::new(PostgresStore::new(
                name.clone(),
                config,
                &surroundings.tls,
                timeout,
                surroundings.clock.clone(),
                surroundings.metrics.store(name, &surroundings.clock),
            )),
            (StoreUrl::Redis(_), redis) => {
                let redis = redis.clone().map(|(_, redis)| redis);
                Arc::new(redis.expect("a Redis that counts was opened above"))
            }
        };
        if redis.is_none() {
            quotas.begin();
        }
        Some(quotas)
    };
    let memberships = if settings.uses(name, StoreUse::Memberships) {
        let open = earlier.and_then(|open| open.memberships.clone());
        open.or_else(|| {
            let members = members(name, store, surroundings)?;
            members.begin();
            Some(members)
        })
    } else {
        None
    };
    Ok(OpenStore {
        name: name.clone(),
        settings: earlier.map_or(store, |open| &open.settings).clone(),
        quotas,
        redis,
        memberships,
    })
}

/// A database that is asked for memberships, where the backend can be.
fn members(
    name: &StoreName,
    settings: &StoreSettings,
    surroundings: &Surroundings,
) -> Option<Arc<dyn MemberDatabase>> {
    let timeout = settings.timeout.get();
    let (tls, clock) = (&surroundings.tls, &surroundings.clock);
    match &settings.url {
        StoreUrl::Sqlite(path) => {
            let members = SqliteMembers::new(name, path.clone(), timeout, clock);
            Some(Arc::new(members))
        }
        StoreUrl::Postgres(config) => {
            let members = PostgresMembers::new(name, config, timeout, tls, clock);
            Some(Arc::new(members))
        }
        StoreUrl::Redis(_) => None,
    }
}

/// Stores that are only looked at: what they have counted is seen if `counted`, or else it is as if nothing were.
/// They may be open elsewhere.
#[must_use]
pub fn look_at(settings: &Settings, surroundings: &Surroundings, counted: bool) -> Vec<OpenStore> {
    let stores = settings.stores.iter();
    stores
        .map(|(name, store)| {
            if counted
                && !matches!(store.url, StoreUrl::Sqlite(_))
                && let Ok(open) = open_one(settings, name, store, surroundings, None)
            {
                return open;
            }
            let file = match &store.url {
                StoreUrl::Sqlite(path) if counted => Some(path.clone()),
                _ => None,
            };
            let look: Arc<dyn Store> = Arc::new(look::Look {
                name: name.clone(),
                file,
            });
            let looks_up = settings.uses(name, StoreUse::Memberships);
            OpenStore {
                name: name.clone(),
                settings: store.clone(),
                quotas: Some(look),
                redis: None,
                memberships: looks_up
                    .then(|| members(name, store, surroundings))
                    .flatten(),
            }
        })
        .collect()
}
