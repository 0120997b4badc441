//! `[stores.<name>]`: where counters are kept.

use std::path::PathBuf;

use policies::Interval;
use schemars::JsonSchema;
use serde::Deserialize;

/// `[stores.<name>]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    /// What it is: `sqlite:` and the path of a file.
    pub url: StoreUrl,
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
}

impl TryFrom<String> for StoreUrl {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        // The text may hold a password, so no message shows it.
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
