//! `[stores.<name>]`

use policies::{Interval, SecretSource, StoreName, StoreUse};
use schemars::JsonSchema;
use serde::Deserialize;

use super::url::StoreUrl;

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
