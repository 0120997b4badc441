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
    /// Where sessions are stored: `"cookie"`, which is encrypted, or the name of a Redis store in `[stores]`. Default:
    /// `"cookie"`.
    #[serde(default)]
    #[schemars(with = "String")]
    pub store: SessionPlace,
    /// The key that encrypts the cookie, at least 64 bytes.
    pub key: SecretSource,
    /// Earlier values of `key`. Cookies that they encrypted stay valid, so you can rotate `key` without signing users
    /// out. Default: none.
    #[serde(default)]
    pub previous_keys: Vec<SecretSource>,
    /// The maximum lifetime of a session. Default: `"12h"`.
    #[serde(default = "default_ttl")]
    pub ttl: Interval,
    /// How long a session lasts without a request. Default: the value of `ttl`.
    #[serde(default)]
    pub idle_ttl: Option<Interval>,
    /// Claims to keep in the session in addition to those that policies read. Each is a name or a JSON Pointer, for
    /// example `["email", "/app_metadata/plan"]`. Default: none.
    #[serde(default)]
    pub claims: Vec<ClaimPath>,
    /// The attributes of the session cookie.
    #[serde(default)]
    pub cookie: CookieSettings,
}

#[derive(Clone, Debug)]
pub struct SessionKeys {
    pub current: SecretString,
    /// These only decrypt cookies.
    pub previous: Vec<SecretString>,
}

fn default_ttl() -> Interval {
    Interval::from_secs(12 * 60 * 60)
}

/// Where sessions are stored: `cookie`, or the name of a store.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "StoreName")]
pub enum SessionPlace {
    #[default]
    Cookie,
    /// The cookie holds only the session's key.
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
