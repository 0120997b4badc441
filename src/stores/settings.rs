//! `[stores.<name>]`

use std::{fmt, path::Path, sync::Arc};

use policies::{Interval, SecretSource, StoreName, StoreUse};
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{
    kind::{Location, StoreKind},
    postgres, redis, sqlite,
};

static KINDS: &[StoreKind] = &[sqlite::KIND, postgres::KIND, redis::KIND];

/// `[stores.<name>]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    /// What it is: `sqlite:` and the path of a file, `postgres://user@host/database`, or `redis://user@host/0`
    /// (`rediss://` by TLS, `redis+sentinel://`, `redis+cluster://`).
    pub url: StoreUrl,
    /// The password of a server.
    #[serde(default)]
    pub password: Option<SecretSource>,
    /// How long one operation may take.
    #[serde(default = "default_timeout")]
    pub timeout: Interval,
}

fn default_timeout() -> Interval {
    Interval::from_secs(2)
}

/// A store of the config, and what policies and the session use it for.
pub struct UsedStore<'a>(pub &'a StoreName, pub &'a StoreSettings, pub Vec<StoreUse>);

/// The kind of a store, and where it is.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct StoreUrl {
    pub(super) kind: &'static StoreKind,
    pub(super) location: Arc<dyn Location>,
    pub(super) password: Option<SecretString>,
    /// The URL and the password. Equal stores have equal identities.
    identity: SecretString,
}

impl StoreUrl {
    pub(crate) fn file(path: &Path) -> Self {
        Self {
            kind: &sqlite::KIND,
            location: sqlite::at(path),
            password: None,
            identity: path.display().to_string().into(),
        }
    }

    /// Returns a message if this kind of store does not support `wanted`.
    pub(crate) fn unsupported(&self, wanted: StoreUse) -> Option<String> {
        if self.kind.uses.contains(&wanted) {
            return None;
        }
        let (what, otherwise) = match wanted {
            StoreUse::Quotas => ("count quotas", ""),
            StoreUse::RateLimits => (
                "count rate limits",
                ", or leave `store` out to count in memory",
            ),
            StoreUse::Sessions => ("keep sessions", ", or write store = \"cookie\""),
            StoreUse::Memberships => ("look up memberships", ""),
        };
        let able = KINDS.iter().filter(|kind| kind.uses.contains(&wanted));
        let able: Vec<_> = able.map(|kind| kind.name).collect();
        let (name, able) = (self.kind.name, able.join(" or "));
        Some(format!("{name} cannot {what}; use {able}{otherwise}"))
    }

    /// Fails if this kind of store has no password.
    pub(crate) fn set_password(&mut self, password: &SecretString) -> Result<(), String> {
        if !self.kind.takes_password {
            return Err(format!("{} has no password", self.kind.name));
        }
        let url = self.identity.expose_secret();
        self.identity = format!("{url} {}", password.expose_secret()).into();
        self.password = Some(password.clone());
        Ok(())
    }
}

impl TryFrom<String> for StoreUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        for kind in KINDS {
            if let Some(location) = (kind.parse)(&text) {
                return Ok(Self {
                    kind,
                    location: location?,
                    password: None,
                    // `sqlite://gate.db` is `sqlite:gate.db`.
                    identity: text.replacen("://", ":", 1).into(),
                });
            }
        }
        let examples: Vec<_> = KINDS.iter().map(|kind| kind.example).collect();
        let examples = examples.join("\" or \"");
        // The rest may contain a password.
        let unknown = match text.split_once("://") {
            Some((scheme, _))
                if scheme
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) =>
            {
                format!("unknown kind of store `{scheme}://`")
            }
            _ => "unknown kind of store".to_owned(),
        };
        Err(format!("{unknown}; write for example \"{examples}\""))
    }
}

impl PartialEq for StoreUrl {
    fn eq(&self, other: &Self) -> bool {
        self.identity.expose_secret() == other.identity.expose_secret()
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreUrl").field(&self.kind.name).finish()
    }
}
