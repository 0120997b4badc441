//! Where counters are kept: backends behind the ports that `policies` declares, chosen by URL.

mod look;
mod sqlite;

use std::sync::Arc;

use policies::{QuotaStore, StoreName};

pub use self::sqlite::{OpenError, SqliteStore};
use crate::settings::{StoreSettings, stores::StoreUrl};

/// Opens a store.
///
/// # Errors
///
/// What keeps it from being opened.
pub fn open(name: &StoreName, settings: &StoreSettings) -> Result<Arc<dyn Store>, OpenError> {
    match &settings.url {
        StoreUrl::Sqlite(path) => {
            let store = SqliteStore::open(name.clone(), path, settings.timeout.get())?;
            Ok(Arc::new(store))
        }
    }
}

/// A store that is only looked at: what it holds is seen if `counted`, or else it is as if empty. It may be open
/// elsewhere.
#[must_use]
pub fn look_at(name: &StoreName, settings: &StoreSettings, counted: bool) -> Arc<dyn Store> {
    let StoreUrl::Sqlite(path) = &settings.url;
    Arc::new(look::Look {
        name: name.clone(),
        file: counted.then(|| path.clone()).filter(|path| path.exists()),
    })
}

/// A store, whatever its backend.
pub trait Store: QuotaStore {
    /// Whether its last operation went well; a failed one is repeated until it does.
    fn is_healthy(&self) -> bool;
}
