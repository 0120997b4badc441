//! `[stores.<name>]`, and `[session]`, which may use one of the stores.

use policies::{StoreName, StoreUse};

use crate::{
    config::{
        Environment, SessionSettings,
        document::{Named, Reader, Value, join},
        fault::unknown,
        secret,
        session::{COOKIE, SessionKeys, SessionPlace},
    },
    http::SESSION_PATH,
    identities::Profiles,
    stores::{FileId, StoreSettings},
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

/// Two stores cannot count in one file, because only one can have it open.
pub(super) fn check_files(
    reader: &mut Reader,
    stores: &Stores,
    counts: impl Fn(&StoreName) -> bool,
) {
    let mut files: Vec<(FileId, &StoreName)> = Vec::new();
    for (name, store) in &stores.0 {
        let file = store.as_ref().and_then(|store| store.url.file_id());
        let Some(file) = file.filter(|_| counts(name)) else {
            continue;
        };
        match files.iter().find(|(other, _)| *other == file) {
            Some((_, first)) => {
                let message = format!(
                    "is the same file as `stores.{first}`, and only one store can count in a file; name `{first}` in \
                     the policies of both"
                );
                reader.fault(format!("stores.{name}.url"), message);
            }
            None => files.push((file, name)),
        }
    }
}

const MIN_KEY_BYTES: usize = 64;

/// Checks `[session]` against the other sections, and loads the keys of the cookie.
pub(super) fn resolve_session(
    session: SessionSettings,
    reader: &mut Reader,
    environment: Environment<'_>,
    stores: &Stores,
    identities: &Profiles<'_>,
) -> Option<(SessionSettings, SessionKeys)> {
    if let SessionPlace::Store(name) = &session.store {
        stores.check(reader, "session.store", name, StoreUse::Sessions);
    }
    if !identities.may_have_session() {
        let message = "no identity has kind = \"session\", so no session can start; add one, or remove [session]";
        reader.warning("session", message);
    }
    // A key that could not be read has its default value, which may contradict the others.
    if !reader.has_fault(COOKIE) {
        session.cookie.check(reader, SESSION_PATH);
    }
    let mut load = |path, source| secret::read(reader, environment, path, source, MIN_KEY_BYTES);
    let current = load("session.key", &session.key);
    let previous = session.previous_keys.iter();
    // Load every key, even if another one has a fault.
    let previous: Vec<_> = previous
        .map(|source| load("session.previous_keys", source))
        .collect();
    let keys = SessionKeys {
        current: current?,
        previous: previous.into_iter().collect::<Option<_>>()?,
    };
    Some((session, keys))
}
