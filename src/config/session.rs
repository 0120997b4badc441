//! `[session]`: the gate's own session cookie.

use policies::{ClaimPath, Interval, StoreName, StoreUse};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use super::{
    document::Reader,
    secret::{self, Environment, SecretSource},
    store::Stores,
};
use crate::{http::SESSION_PATH, identities::Profiles};

pub use super::session_cookie::{CookieName, CookieSettings, SameSite};

const KEY_BYTES: usize = 64;

/// `[session]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionSettings {
    /// Where sessions are kept.
    #[serde(default)]
    #[schemars(with = "String")]
    pub store: SessionPlace,
    /// The key that the cookie is encrypted with, at least 64 bytes.
    pub key: SecretSource,
    /// Keys that cookies were encrypted with earlier: they are still read, so that a change of the key signs
    /// nobody out.
    #[serde(default)]
    pub previous_keys: Vec<SecretSource>,
    /// How long a session lasts, whatever is done with it.
    #[serde(default = "default_ttl")]
    pub ttl: Interval,
    /// How long a session lasts without a request; left out: as long as `ttl`.
    #[serde(default)]
    pub idle_ttl: Option<Interval>,
    /// Claims that a session keeps besides those that policies read, each by its name or by a JSON Pointer.
    #[serde(default)]
    pub claims: Vec<ClaimPath>,
    /// The cookie.
    #[serde(default)]
    pub cookie: CookieSettings,
}

#[derive(Clone, Debug)]
pub struct SessionKeys {
    /// Encrypts cookies.
    pub current: SecretString,
    /// Only decrypt cookies, from before a change of the key.
    pub previous: Vec<SecretString>,
}

impl SessionSettings {
    /// Loads the keys of the cookie and checks the section.
    pub(super) fn resolve(
        self,
        reader: &mut Reader,
        environment: Environment<'_>,
        stores: &Stores,
        identities: &Profiles<'_>,
    ) -> Option<(Self, SessionKeys)> {
        if let SessionPlace::Store(name) = &self.store {
            stores.check(reader, "session.store", name, StoreUse::Sessions);
        }
        if !identities.may_have_session() {
            let message = "no identity is of kind \"session\", so no session can begin; add one, or leave [session] out";
            reader.warning("session", message);
        }
        // An unreadable key has its default, which may contradict the others.
        if !reader.has_fault("session.cookie") {
            for contradiction in self.cookie.contradictions(SESSION_PATH) {
                reader.fault("session.cookie", contradiction);
            }
            for warning in self.cookie.warnings() {
                reader.warning("session.cookie", warning);
            }
        }
        let mut load = |path, source| secret::read(reader, environment, path, source, KEY_BYTES);
        let current = load("session.key", &self.key);
        let previous = self.previous_keys.iter();
        // Load every key, even if another one has a fault.
        let previous: Vec<_> = previous
            .map(|source| load("session.previous_keys", source))
            .collect();
        let keys = SessionKeys {
            current: current?,
            previous: previous.into_iter().collect::<Option<_>>()?,
        };
        Some((self, keys))
    }
}

fn default_ttl() -> Interval {
    Interval::from_secs(12 * 60 * 60)
}

/// Where sessions are kept: `cookie`, or a name of `[stores]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "StoreName")]
pub enum SessionPlace {
    /// In the cookie itself, encrypted.
    #[default]
    Cookie,
    /// In a store. The cookie holds only the session's key.
    Store(StoreName),
}

impl From<StoreName> for SessionPlace {
    fn from(name: StoreName) -> Self {
        if name.as_str() == "cookie" {
            Self::Cookie
        } else {
            Self::Store(name)
        }
    }
}

impl SessionPlace {
    #[must_use]
    pub fn name(&self) -> Option<&StoreName> {
        match self {
            Self::Cookie => None,
            Self::Store(name) => Some(name),
        }
    }
}
