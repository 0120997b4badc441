//! A standalone rate limit: one counter per key, in memory, independent of any chain.

use std::{num::NonZeroU32, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    AttemptResult, Clock, Interval, Pass, RateLimitSettings,
    engine::{rate_limit_memory::MemoryLimit, units},
};

/// How many keys are counted separately. Further keys share one counter.
const MAX_KEYS: NonZeroU32 = NonZeroU32::new(100_000).expect("it is not zero");

/// So many attempts in a period, counted apart for each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "units::Frequency")]
#[schemars(with = "units::Frequency")]
pub struct KeyedLimitSettings {
    limit: NonZeroU32,
    period: Interval,
}

impl KeyedLimitSettings {
    /// `limit` attempts in a minute, for defaults.
    #[must_use]
    pub const fn per_minute(limit: NonZeroU32) -> Self {
        Self {
            limit,
            period: Interval::from_secs(60),
        }
    }

    /// How many attempts may come at once, and return in a period.
    #[must_use]
    pub fn limit(&self) -> NonZeroU32 {
        self.limit
    }
}

impl TryFrom<units::Frequency> for KeyedLimitSettings {
    type Error = &'static str;

    fn try_from(frequency: units::Frequency) -> Result<Self, Self::Error> {
        let units::Frequency { limit, period } = frequency;
        RateLimitSettings::in_memory(limit, period, MAX_KEYS)?;
        Ok(Self { limit, period })
    }
}

/// Counts attempts by key, exactly within the process. Its memory is bounded, whatever keys arrive.
pub struct KeyedLimit(MemoryLimit);

impl KeyedLimit {
    /// Starts with empty counters.
    ///
    /// # Panics
    ///
    /// Never: settings are checked when they are made.
    #[must_use]
    pub fn new(settings: &KeyedLimitSettings, clock: Arc<dyn Clock>) -> Self {
        let settings = RateLimitSettings::in_memory(settings.limit, settings.period, MAX_KEYS);
        let settings = settings.expect("the settings were checked when they were made");
        Self(MemoryLimit::new(&settings, clock))
    }

    /// Counts an attempt, if one is left.
    pub fn take(&self, key: &str) -> AttemptResult {
        self.0.take(key, Pass::Issue)
    }

    /// The result of an attempt now, without counting it.
    #[must_use]
    pub fn peek(&self, key: &str) -> AttemptResult {
        self.0.take(key, Pass::Preview)
    }
}
