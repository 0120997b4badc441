//! `[session]`: the gate's own session cookie.

use policies::{ClaimPath, Interval, StoreName};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use super::secret::SecretSource;

pub use super::session_cookie::{CookieName, CookieSettings, SameSite};

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
