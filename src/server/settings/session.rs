//! Checks `[session]` against the other sections.

use policies::StoreUse;

use super::stores::Stores;
use crate::{
    config::{
        Environment, SessionSettings,
        document::Reader,
        secret,
        session::{SessionKeys, SessionPlace},
    },
    http::SESSION_PATH,
    identities::Profiles,
};

const MIN_KEY_BYTES: usize = 64;

/// Checks the section, and loads the keys of the cookie.
pub(super) fn resolve(
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
    if !reader.has_fault("session.cookie") {
        for contradiction in session.cookie.contradictions(SESSION_PATH) {
            reader.fault("session.cookie", contradiction);
        }
        for warning in session.cookie.warnings() {
            reader.warning("session.cookie", warning);
        }
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
