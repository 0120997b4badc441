//! A standalone rate limit: one counter per key, in memory, independent of any chain.

use std::{num::NonZeroU32, sync::Arc};

use governor::Quota;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    AttemptResult, Clock, Pass,
    engine::{
        rate_limit_memory::{self, MemoryLimit},
        units,
    },
};

/// How many keys are counted separately. Further keys share one counter.
const MAX_KEYS: NonZeroU32 = NonZeroU32::new(100_000).expect("it is not zero");

/// So many attempts in a period, counted apart for each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "units::Frequency")]
#[schemars(with = "units::Frequency")]
pub struct KeyedLimitSettings(Quota);

impl KeyedLimitSettings {
    /// Allows `limit` attempts per minute, for defaults.
    #[must_use]
    pub const fn per_minute(limit: NonZeroU32) -> Self {
        Self(Quota::per_minute(limit))
    }

    /// How many attempts may come at once, and return in each period.
    #[must_use]
    pub fn limit(&self) -> NonZeroU32 {
        self.0.burst_size()
    }
}

impl TryFrom<units::Frequency> for KeyedLimitSettings {
    type Error = &'static str;

    fn try_from(frequency: units::Frequency) -> Result<Self, Self::Error> {
        let units::Frequency { limit, period } = frequency;
        let quota = rate_limit_memory::quota(limit, period, limit)?;
        Ok(Self(quota))
    }
}

/// Counts attempts by key, exactly within the process. Its memory is bounded, whatever keys arrive.
pub struct KeyedLimit(MemoryLimit);

impl KeyedLimit {
    /// Starts with empty counters.
    #[must_use]
    pub fn new(settings: &KeyedLimitSettings, clock: Arc<dyn Clock>) -> Self {
        Self(MemoryLimit::new(settings.0, MAX_KEYS, clock))
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
