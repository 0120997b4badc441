//! Loads what the config names: secrets, keys, certificates.

use secrecy::{ExposeSecret as _, SecretString};

use super::{
    Environment, ImgwireSettings, SessionSettings, StoreSettings,
    document::{Reader, join},
    outbound::{ExtraAuthorities, OutboundSettings},
    secret::SecretSource,
    session::{CookieSettings, SessionKeys},
};
use crate::routes::SESSION_PATH;

const SESSION_KEY_BYTES: usize = 64;

/// Loads a secret; what is wrong with it is noted.
pub(super) fn secret(
    reader: &mut Reader,
    key: &str,
    source: &SecretSource,
    environment: Environment<'_>,
    least: usize,
) -> Option<SecretString> {
    let loaded = super::secret::load(source, environment, least);
    loaded.map_err(|message| reader.fault(key, message)).ok()
}

pub(super) fn api_key(
    reader: &mut Reader,
    imgwire: &ImgwireSettings,
    environment: Environment<'_>,
) -> Option<SecretString> {
    let key = secret(reader, "imgwire.api_key", &imgwire.api_key, environment, 1)?;
    let text = key.expose_secret();
    let fault = if text.starts_with("ck_") {
        "is a Client Key; the Server API Key (sk_...) is needed"
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        "has characters that no key has"
    } else {
        return Some(key);
    };
    reader.fault("imgwire.api_key", fault);
    None
}

pub(super) fn session_keys(
    reader: &mut Reader,
    session: &SessionSettings,
    environment: Environment<'_>,
) -> Option<SessionKeys> {
    let current = secret(
        reader,
        "session.key",
        &session.key,
        environment,
        SESSION_KEY_BYTES,
    );
    let previous: Vec<_> = session
        .previous_keys
        .iter()
        .map(|source| {
            let key = "session.previous_keys";
            secret(reader, key, source, environment, SESSION_KEY_BYTES)
        })
        .collect();
    cookie(reader, &session.cookie);
    Some(SessionKeys {
        current: current?,
        previous: previous.into_iter().collect::<Option<_>>()?,
    })
}

/// Notes what browsers would do with the session cookie that its settings do not say.
fn cookie(reader: &mut Reader, cookie: &CookieSettings) {
    const KEY: &str = "session.cookie";
    // A key that could not be read has its default, which may not go with the others.
    if reader.has_fault(KEY) {
        return;
    }

    for contradiction in cookie.contradictions(SESSION_PATH) {
        reader.fault(KEY, contradiction);
    }
    for warning in cookie.warnings() {
        reader.warning(KEY, warning);
    }
}

/// Puts a store's password, if it has one, where its URL is.
pub(super) fn with_password(
    reader: &mut Reader,
    path: &str,
    mut store: StoreSettings,
    environment: Environment<'_>,
) -> Option<StoreSettings> {
    if let Some(source) = &store.password {
        let key = join(path, "password");
        let password = secret(reader, &key, source.get_ref(), environment, 1)?;
        if let Err(fault) = store.url.set_password(&password) {
            reader.fault(key, fault);
        }
    }
    Some(store)
}

pub(super) fn authorities(
    reader: &mut Reader,
    outbound: &OutboundSettings,
) -> Option<ExtraAuthorities> {
    let Some(path) = &outbound.ca else {
        return Some(ExtraAuthorities::default());
    };
    ExtraAuthorities::read(path)
        .map_err(|message| reader.fault("outbound.ca", message))
        .ok()
}
