//! Loads what the config names: secrets, keys, certificates.

use secrecy::{ExposeSecret as _, SecretString};

use super::{
    Environment, Identity, IdentitySettings, ImgwireSettings, JwtSettings, SessionSettings,
    StoreSettings,
    document::{Reader, join},
    identities::jwt::{KeyMaterial, KeySource, Location},
    outbound::{ExtraAuthorities, OutboundSettings},
    secret::SecretSource,
    session::{CookieSettings, SessionKeys},
};
use crate::{
    keys::{self, Key, KeySet},
    routes::SESSION_PATH,
};

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

/// Makes an identity ready to be asked: loads its secrets and keys.
pub(super) fn ready(
    reader: &mut Reader,
    path: &str,
    settings: IdentitySettings,
    environment: Environment<'_>,
) -> Option<Identity> {
    Some(match settings {
        IdentitySettings::Jwt(jwt) => {
            let keys = jwt_keys(reader, path, &jwt, environment)?;
            Identity::Jwt(jwt, keys)
        }
        IdentitySettings::Introspection(introspection) => {
            let key = join(path, "client_secret");
            let source = &introspection.client_secret;
            let secret = secret(reader, &key, source, environment, 1)?;
            Identity::Introspection(introspection, secret)
        }
        IdentitySettings::Session(session) => Identity::Session(session),
        IdentitySettings::Forwarded(forwarded) => Identity::Forwarded(forwarded),
        IdentitySettings::Remote(remote) => Identity::Remote(remote),
    })
}

fn jwt_keys(
    reader: &mut Reader,
    path: &str,
    jwt: &JwtSettings,
    environment: Environment<'_>,
) -> Option<KeyMaterial> {
    // What is wrong with them together is noted already; no key is read then.
    if reader.has_fault(path) {
        return None;
    }
    let algorithms = &jwt.algorithms;
    let found = *jwt.key_sources().first()?;
    let key = join(path, found.key());
    let material = match found {
        KeySource::Secret(sources) => {
            let least = keys::least_secret(algorithms);
            // Every secret is loaded, so that every fault is found.
            let secrets: Vec<_> = sources
                .as_slice()
                .iter()
                .map(|source| secret(reader, &key, source, environment, least))
                .collect();
            let secrets = secrets.into_iter().collect::<Option<Vec<_>>>()?;
            let keys = secrets.iter();
            Ok(KeyMaterial::Fixed(
                keys.flat_map(|secret| Key::from_secret(secret, algorithms))
                    .collect(),
            ))
        }
        KeySource::PublicKey(source) => {
            let pem = secret(reader, &key, source, environment, 1)?;
            Key::from_pem(&pem, algorithms).map(KeyMaterial::Fixed)
        }
        KeySource::Jwks(source) => {
            let text = secret(reader, &key, source, environment, 1)?;
            let text = text.expose_secret().as_bytes();
            match KeySet::parse(text, algorithms, None) {
                Ok((set, _)) if set.is_empty() => Err("has no key of use".to_owned()),
                Ok((set, _)) => Ok(KeyMaterial::Set(set)),
                Err(reason) => Err(reason.to_owned()),
            }
        }
        KeySource::JwksUrl(url) => Ok(KeyMaterial::Published(Location::Jwks(url.clone()))),
        KeySource::Discovery(_) => Ok(KeyMaterial::Published(Location::Discovery {
            issuer: jwt.issuer.as_ref()?.literal()?.to_owned(),
            insecure_http: jwt.insecure_http,
        })),
    };
    material.map_err(|message| reader.fault(key, message)).ok()
}
