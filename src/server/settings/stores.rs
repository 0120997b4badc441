//! `[stores.<name>]`, and `[session]`, which may use one of the stores.

use std::path::Path;

use policies::{SecretSource, StoreName, StoreUse};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    config::{
        Environment, SessionSettings,
        document::{Named, Reader, Value, join},
        secret,
        session::{COOKIE, SessionKeys, SessionPlace},
    },
    http::SESSION_PATH,
    identities::Profiles,
    outbound::{IdentityError, TlsMaterial},
    stores::{FilePlace, Store, StoreSettings, StoreUrl, TlsSettings, UrlSource},
};

/// All stores of a config; `None` for a store that could not be read.
pub(super) struct Stores(pub(super) Vec<Named<StoreName, Store>>);

pub(super) fn read(
    reader: &mut Reader,
    environment: Environment<'_>,
    path: &str,
    value: Value<'_>,
) -> Option<Store> {
    let settings: StoreSettings = reader.table(path, value)?;
    let url = match &settings.url {
        UrlSource::Text(url) => Some(url.clone()),
        UrlSource::Secret(source) => {
            let key = join(path, "url");
            let text = secret::read(reader, environment, &key, source, 1);
            text.and_then(|text| {
                let url = StoreUrl::parse(text.expose_secret());
                url.map_err(|fault| reader.fault(key, fault)).ok()
            })
        }
    };
    let password = settings.password.as_ref().map(|source| {
        let key = join(path, "password");
        secret::read(reader, environment, &key, source, 1)
    });
    let mut url = url?;
    if let Some(password) = &password {
        let set = url.set_password(password.as_ref()?);
        set.map_err(|fault| reader.fault(join(path, "password"), fault))
            .ok();
    }
    if let Some(prefix) = &settings.prefix
        && let Err(fault) = url.set_prefix(prefix)
    {
        reader.fault(join(path, "prefix"), fault);
    }
    read_sentinel_login(reader, environment, path, &settings, &mut url)?;
    read_tls(reader, environment, path, settings.tls.as_ref(), &mut url)?;
    Some(Store { url, settings })
}

/// Reads how the gate signs in at Sentinels.
fn read_sentinel_login(
    reader: &mut Reader,
    environment: Environment<'_>,
    path: &str,
    settings: &StoreSettings,
    url: &mut StoreUrl,
) -> Option<()> {
    let user = settings.sentinel_user.as_deref();
    let Some(source) = &settings.sentinel_password else {
        let key = join(path, "sentinel_user");
        return match user.map(|_| url.require_sentinels()) {
            None => Some(()),
            Some(Ok(())) => reject(reader, &key, "needs `sentinel_password`, too"),
            Some(Err(fault)) => reject(reader, &key, fault),
        };
    };
    let key = join(path, "sentinel_password");
    let password = secret::read(reader, environment, &key, source, 1)?;
    match url.set_sentinel_login(user, &password) {
        Ok(()) => Some(()),
        Err(fault) => reject(reader, &key, fault),
    }
}

/// Reads the certificates that `tls` or the URL names.
fn read_tls(
    reader: &mut Reader,
    environment: Environment<'_>,
    path: &str,
    tls: Option<&TlsSettings>,
    url: &mut StoreUrl,
) -> Option<()> {
    let (by_url, in_url) = match (url.tls(), tls) {
        (Err(fault), Some(_)) => return reject(reader, &join(path, "tls"), fault),
        (Err(_), None) => return Some(()),
        (Ok(in_url), _) => (tls.is_none(), in_url),
    };
    let is_named = in_url.ca.is_some() || in_url.certificate.is_some() || in_url.key.is_some();
    if !by_url && is_named {
        let fault = "the URL also names certificates; write them in one of the two places";
        return reject(reader, &join(path, "tls"), fault);
    }
    let names = tls.unwrap_or(&in_url);
    let key_of = |key: &str| match by_url {
        true => join(path, "url"),
        false => join(&join(path, "tls"), key),
    };
    let file = |reader: &mut Reader, key: &str, file: &Path| {
        let source = SecretSource::File(file.to_owned());
        secret::read_document(reader, environment, &key_of(key), &source)
    };
    let mut material = TlsMaterial::default();
    let mut texts = Vec::new();
    if let Some(ca) = &names.ca {
        let pem = file(reader, "ca", ca)?;
        if let Err(fault) = material.trust(pem.expose_secret()) {
            return reject(reader, &key_of("ca"), in_file(ca, fault));
        }
        texts.push(pem);
    }
    match (&names.certificate, &names.key) {
        (None, None) => {}
        (Some(certificate), Some(source)) => {
            let chain = file(reader, "certificate", certificate);
            let key = secret::read_document(reader, environment, &key_of("key"), source);
            let (chain, key) = (chain?, key?);
            match material.identify(chain.expose_secret(), key.expose_secret()) {
                Ok(()) => texts.extend([chain, key]),
                Err(IdentityError::Certificate(fault)) => {
                    let fault = in_file(certificate, fault);
                    return reject(reader, &key_of("certificate"), fault);
                }
                Err(IdentityError::Key(fault)) => {
                    return reject(reader, &key_of("key"), format!("the private key {fault}"));
                }
            }
        }
        (Some(_), None) => {
            return reject(
                reader,
                &key_of(""),
                "a client certificate needs its private key",
            );
        }
        (None, Some(_)) => {
            return reject(
                reader,
                &key_of(""),
                "a private key needs its client certificate",
            );
        }
    }
    let texts: Vec<_> = texts.iter().map(SecretString::expose_secret).collect();
    let set = url.set_tls(material, &texts);
    set.map_err(|fault| reader.fault(join(path, "url"), fault))
        .ok()
}

fn in_file(file: &Path, fault: &str) -> String {
    format!("the file `{}` {fault}", file.display())
}

fn reject(reader: &mut Reader, key: &str, fault: impl Into<String>) -> Option<()> {
    reader.fault(key.trim_end_matches('.'), fault);
    None
}

impl Stores {
    /// The first store that supports this use.
    pub(super) fn first_for(&self, wanted: StoreUse) -> Option<&StoreName> {
        let mut stores = self.0.iter();
        stores.find_map(|(name, store)| {
            let is_able = store.as_ref()?.url.unsupported(wanted).is_none();
            is_able.then_some(name)
        })
    }

    /// Checks that a store supports the wanted use.
    pub(super) fn check(
        &self,
        reader: &mut Reader,
        path: &str,
        name: &StoreName,
        wanted: StoreUse,
    ) {
        let found = self.0.iter().find(|(other, _)| other == name);
        let store = found.and_then(|(_, store)| store.as_ref());
        if let Some(fault) = store.and_then(|store| store.url.unsupported(wanted)) {
            reader.fault(path, fault);
        }
    }
}

/// Two stores cannot write to one file, because only one can have it open.
pub(super) fn check_files(
    reader: &mut Reader,
    stores: &Stores,
    writes: impl Fn(&StoreName) -> bool,
) {
    let mut files: Vec<(FilePlace, &StoreName)> = Vec::new();
    for (name, store) in &stores.0 {
        let file = store.as_ref().and_then(|store| store.url.file_place());
        let Some(file) = file.filter(|_| writes(name)) else {
            continue;
        };
        match files.iter().find(|(other, _)| *other == file) {
            Some((_, first)) => {
                let message = format!(
                    "is the same file as `stores.{first}`, and only one store can write to a file; name `{first}` in \
                     the policies and routes of both"
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
