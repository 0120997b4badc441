//! `[session]`: the gate's own session cookie.

use policies::{ClaimPath, Interval, StoreName};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;
use serde_spanned::Spanned;

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
    #[schemars(with = "SecretSource")]
    pub key: Spanned<SecretSource>,
    /// Keys that cookies were encrypted with earlier: they are still read, so that a change of the key signs
    /// nobody out.
    #[serde(default)]
    #[schemars(with = "Vec<SecretSource>")]
    pub previous_keys: Vec<Spanned<SecretSource>>,
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
    #[serde(default = "default_cookie")]
    #[schemars(with = "CookieSettings")]
    pub cookie: Spanned<CookieSettings>,
}

/// The keys of the session cookie.
#[derive(Clone, Debug)]
pub struct SessionKeys {
    /// The one that cookies are encrypted with.
    pub current: SecretString,
    /// Those that cookies were encrypted with earlier.
    pub previous: Vec<SecretString>,
}

fn default_cookie() -> Spanned<CookieSettings> {
    Spanned::new(0..0, CookieSettings::default())
}

fn default_ttl() -> Interval {
    Interval::from_secs(12 * 60 * 60)
}

/// Where sessions are kept: `cookie`, or a name of `[stores]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "Spanned<StoreName>")]
pub enum SessionPlace {
    /// In the cookie itself, encrypted.
    #[default]
    Cookie,
    /// In a store; the cookie has the session's key.
    Store(Spanned<StoreName>),
}

impl From<Spanned<StoreName>> for SessionPlace {
    fn from(name: Spanned<StoreName>) -> Self {
        if name.get_ref().as_str() == "cookie" {
            Self::Cookie
        } else {
            Self::Store(name)
        }
    }
}

impl SessionPlace {
    /// The store, if it is one.
    #[must_use]
    pub fn name(&self) -> Option<&StoreName> {
        match self {
            Self::Cookie => None,
            Self::Store(name) => Some(name.get_ref()),
        }
    }
}
