//! `[uploads]`: how uploads are followed, and how long their records are kept.

use std::num::NonZeroU32;

use policies::Interval;
use schemars::JsonSchema;
use serde::Deserialize;

const DAY: u32 = 24 * 60 * 60;

/// `[uploads]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UploadsSettings {
    /// How long the gate keeps the records of deleted and abandoned images, and of upload tokens whose image is not known. Default: `"400d"`.
    pub keep_records: Interval,
    /// How many images the gate may read from Imgwire to follow uploads and to reconcile records. All gates that share the
    /// store stay under it together. Default: `{ limit = 1000, period = "1s" }`.
    pub reads: ReadsSettings,
}

/// A number of reads per period.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "limit": 1000, "period": "1s" }]))]
pub struct ReadsSettings {
    /// The number of reads that may come at once, and that return in each period.
    pub limit: NonZeroU32,
    /// The length of a period.
    pub period: Interval,
}

impl Default for UploadsSettings {
    fn default() -> Self {
        Self {
            keep_records: Interval::from_secs(400 * DAY),
            reads: ReadsSettings {
                limit: const { NonZeroU32::new(1000).expect("1,000 is not zero") },
                period: Interval::from_secs(1),
            },
        }
    }
}
