//! `[uploads]`: how long records of uploads are kept.

use policies::Interval;
use schemars::JsonSchema;
use serde::Deserialize;

const DAY: u32 = 24 * 60 * 60;

/// `[uploads]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UploadsSettings {
    /// How long the gate keeps the records of deleted images, and of upload tokens whose image is not known. Default: `"400d"`.
    pub keep_records: Interval,
}

impl Default for UploadsSettings {
    fn default() -> Self {
        Self {
            keep_records: Interval::from_secs(400 * DAY),
        }
    }
}
