//! Where counters are kept and memberships looked up: backends behind the ports that `policies` declares, chosen by
//! URL.

mod look;
mod members;
mod postgres;
mod sqlite;

use std::sync::Arc;

use policies::{QuotaStore, StoreName, settings::StoreUse};
use rustls::ClientConfig;

pub use self::{
    members::{MemberDatabase, QueryError},
    sqlite::{OpenError, SqliteStore},
};
use self::{postgres::PostgresMembers, sqlite::SqliteMembers};
use crate::settings::{Settings, StoreSettings, stores::StoreUrl};

/// A store, opened for what the policies use it for.
#[derive(Clone)]
pub struct OpenStore {
    /// Its name.
    pub name: StoreName,
    settings: StoreSettings,
    quotas: Option<Arc<dyn Store>>,
    memberships: Option<Arc<dyn MemberDatabase>>,
}

/// A store that counts, whatever its backend.
pub trait Store: QuotaStore {
    /// Whether its last operation went well; a failed one is repeated until it does.
    fn is_healthy(&self) -> bool;
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

    /// Where memberships are looked up, if it was opened for that.
    #[must_use]
    pub fn memberships(&self) -> Option<Arc<dyn MemberDatabase>> {
        self.memberships.clone()
    }

    /// Whether everything that it is used for works.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        let quotas = self.quotas.as_ref();
        let memberships = self.memberships.as_ref();
        quotas.is_none_or(|store| store.is_healthy())
            && memberships.is_none_or(|database| database.is_healthy())
    }
}

/// Opens the stores that the policies use. Those of `earlier` which are where they were stay open, with the timeout
/// that they were opened with.
///
/// # Errors
///
/// What keeps the first that fails from being opened.
pub fn open(
    settings: &Settings,
    tls: &Arc<ClientConfig>,
    earlier: &[OpenStore],
) -> Result<Vec<OpenStore>, StoreError> {
    let stores = settings.stores.iter();
    stores
        .map(|(name, store)| {
            let same = |open: &&OpenStore| open.settings.url == store.url;
            let earlier = earlier.iter().find(|open| open.name == *name).filter(same);
            let quotas = if !settings.uses(name, StoreUse::Quotas) {
                None
            } else if let Some(quotas) = earlier.and_then(|open| open.quotas.clone()) {
                Some(quotas)
            } else {
                open_quotas(name, store).map_err(|source| StoreError {
                    name: name.clone(),
                    source,
                })?
            };
            let memberships = settings.uses(name, StoreUse::Memberships).then(|| {
                let open = earlier.and_then(|open| open.memberships.clone());
                open.unwrap_or_else(|| members(store, tls))
            });
            Ok(OpenStore {
                name: name.clone(),
                settings: earlier.map_or(store, |open| &open.settings).clone(),
                quotas,
                memberships,
            })
        })
        .collect()
}

fn open_quotas(
    name: &StoreName,
    settings: &StoreSettings,
) -> Result<Option<Arc<dyn Store>>, OpenError> {
    match &settings.url {
        StoreUrl::Sqlite(path) => {
            let store = SqliteStore::open(name.clone(), path, settings.timeout.get())?;
            Ok(Some(Arc::new(store)))
        }
        StoreUrl::Postgres(_) => Ok(None),
    }
}

fn members(settings: &StoreSettings, tls: &Arc<ClientConfig>) -> Arc<dyn MemberDatabase> {
    let timeout = settings.timeout.get();
    match &settings.url {
        StoreUrl::Sqlite(path) => Arc::new(SqliteMembers::new(path.clone(), timeout)),
        StoreUrl::Postgres(config) => Arc::new(PostgresMembers::new(config, timeout, tls)),
    }
}

/// Stores that are only looked at: what they have counted is seen if `counted`, or else it is as if nothing were.
/// They may be open elsewhere.
#[must_use]
pub fn look_at(settings: &Settings, tls: &Arc<ClientConfig>, counted: bool) -> Vec<OpenStore> {
    let stores = settings.stores.iter();
    stores
        .map(|(name, store)| {
            let file = match &store.url {
                StoreUrl::Sqlite(path) if counted => Some(path.clone()),
                _ => None,
            };
            let look: Arc<dyn Store> = Arc::new(look::Look {
                name: name.clone(),
                file: file.filter(|path| path.exists()),
            });
            let looks_up = settings.uses(name, StoreUse::Memberships);
            OpenStore {
                name: name.clone(),
                settings: store.clone(),
                quotas: Some(look),
                memberships: looks_up.then(|| members(store, tls)),
            }
        })
        .collect()
}
