//! `[stores.<name>]`: the stores of a config that is being read.

use policies::{StoreName, StoreUse};

use crate::{
    config::{
        Environment,
        document::{Named, Reader, Value, join},
        secret,
        suggestion::unknown,
    },
    stores::StoreSettings,
};

/// All stores of a config; `None` for a store that could not be read.
pub(super) struct Stores(pub(super) Vec<Named<StoreName, StoreSettings>>);

pub(super) fn read(
    reader: &mut Reader,
    environment: Environment<'_>,
    path: &str,
    value: Value<'_>,
) -> Option<StoreSettings> {
    let mut store: StoreSettings = reader.table(path, value)?;
    if let Some(source) = &store.password {
        let key = join(path, "password");
        let password = secret::read(reader, environment, &key, source, 1)?;
        if let Err(fault) = store.url.set_password(&password) {
            reader.fault(key, fault);
        }
    }
    Some(store)
}

impl Stores {
    /// Checks that a store exists and supports the wanted use.
    pub(super) fn check(
        &self,
        reader: &mut Reader,
        path: &str,
        name: &StoreName,
        wanted: StoreUse,
    ) {
        let Some((_, store)) = self.0.iter().find(|(other, _)| other == name) else {
            let known = self.0.iter().map(|(name, _)| name.as_str());
            reader.fault(path, unknown("store", name.as_str(), known));
            return;
        };
        if let Some(fault) = store
            .as_ref()
            .and_then(|store| store.url.unsupported(wanted))
        {
            reader.fault(path, fault);
        }
    }
}
