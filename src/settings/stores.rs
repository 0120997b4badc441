//! `[stores.<name>]`: where counters are kept, and memberships looked up.

use std::path::PathBuf;

use policies::{Interval, SecretSource, StoreUse};
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_spanned::Spanned;

use super::redis_url::RedisUrl;

/// `[stores.<name>]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    /// What it is: `sqlite:` and the path of a file, `postgres://user@host/database`, or `redis://user@host/0`
    /// (`rediss://` by TLS, `redis+sentinel://`, `redis+cluster://`).
    pub url: StoreUrl,
    /// The password of a server.
    #[serde(default)]
    #[schemars(with = "Option<SecretSource>")]
    pub password: Option<Spanned<SecretSource>>,
    /// How long one operation may take.
    #[serde(default = "default_timeout")]
    pub timeout: Interval,
}

fn default_timeout() -> Interval {
    Interval::from_secs(2)
}

/// A backend and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub enum StoreUrl {
    /// A file of SQLite's.
    Sqlite(PathBuf),
    /// A server of PostgreSQL's. Its `Debug` shows no password.
    Postgres(Box<tokio_postgres::Config>),
    /// A server or a cluster of Redis. Its `Debug` shows no password.
    Redis(RedisUrl),
}

impl StoreUrl {
    /// Why a store of this kind cannot be used for `wanted`, if so.
    #[must_use]
    pub fn cannot(&self, wanted: StoreUse) -> Option<&'static str> {
        match (self, wanted) {
            (Self::Sqlite(_) | Self::Postgres(_), StoreUse::RateLimits) => Some(
                "is no Redis; a rate limit is counted there, or in memory where no store is named",
            ),
            (Self::Sqlite(_) | Self::Postgres(_), StoreUse::Sessions) => {
                Some("is no Redis; sessions are kept there, or in the `cookie`")
            }
            (Self::Redis(_), StoreUse::Memberships) => {
                Some("is a Redis; memberships are looked up in `sqlite:` or `postgres://`")
            }
            (Self::Sqlite(_) | Self::Postgres(_), StoreUse::Quotas | StoreUse::Memberships)
            | (Self::Redis(_), StoreUse::Quotas | StoreUse::RateLimits | StoreUse::Sessions) => {
                None
            }
        }
    }

    /// Adds a password.
    ///
    /// # Errors
    ///
    /// When the backend knows none.
    pub(super) fn set_password(&mut self, password: &SecretString) -> Result<(), &'static str> {
        match self {
            Self::Sqlite(_) => Err("goes with a server alone, not with a file"),
            Self::Redis(url) => {
                url.set_password(password);
                Ok(())
            }
            Self::Postgres(config) => {
                config.password(password.expose_secret());
                Ok(())
            }
        }
    }
}

impl TryFrom<String> for StoreUrl {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        // The text may hold a password, so no message shows it.
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            let config: Result<tokio_postgres::Config, _> = text.parse();
            return config
                .map(|config| Self::Postgres(Box::new(config)))
                .map_err(
                    |_| "is no URL of a database; write for example \"postgres://gate@db/app\"",
                );
        }
        if let Some(url) = RedisUrl::parse(&text) {
            return url.map(Self::Redis);
        }
        match text.strip_prefix("sqlite:") {
            Some("" | ":memory:") => Err("`sqlite:` needs the path of a file"),
            Some(path) => {
                let path = path.strip_prefix("//").unwrap_or(path);
                Ok(Self::Sqlite(path.into()))
            }
            None => Err("is no store's URL; write for example \"sqlite:data/gate.db\""),
        }
    }
}
