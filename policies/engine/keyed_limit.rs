//! A rate limit in memory that is not a policy: the caller chooses the keys.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use governor::Quota;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    AttemptResult, Clock, Pass, ReachedLimit,
    engine::{
        config_values::Frequency,
        rate_limit_memory::{self, MemoryLimit},
    },
};

/// The number of keys that are counted separately. Further keys share one counter.
const MAX_KEYS: NonZeroU32 = NonZeroU32::new(100_000).expect("it is not zero");

/// At most `limit` attempts per period, counted separately for each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "Frequency")]
#[schemars(with = "Frequency")]
pub struct KeyedLimitSettings(Quota);

impl KeyedLimitSettings {
    /// Allows `limit` attempts per minute, for defaults.
    #[must_use]
    pub const fn per_minute(limit: NonZeroU32) -> Self {
        Self(Quota::per_minute(limit))
    }

    /// Returns the number of attempts that may come at once, and that return in each period.
    #[must_use]
    pub fn limit(&self) -> NonZeroU32 {
        self.0.burst_size()
    }
}

impl TryFrom<Frequency> for KeyedLimitSettings {
    type Error = &'static str;

    fn try_from(frequency: Frequency) -> Result<Self, Self::Error> {
        let Frequency { limit, period } = frequency;
        let quota = rate_limit_memory::quota(limit, period, limit)?;
        Ok(Self(quota))
    }
}

/// Counts attempts by key, exactly within the process. Its memory is bounded for any number of keys.
pub struct KeyedLimit(MemoryLimit);

impl KeyedLimit {
    /// Creates a limit with empty counters.
    #[must_use]
    pub fn new(settings: &KeyedLimitSettings, clock: Arc<dyn Clock>) -> Self {
        Self(MemoryLimit::new(settings.0, MAX_KEYS, clock))
    }

    /// Describes the limit as reached, under a key that is named for the log, for example `user=user_1`.
    #[must_use]
    pub fn reached(&self, key: String) -> Box<ReachedLimit> {
        let quota = self.0.quota();
        let limit = quota.burst_size().get();
        // The interval is rounded up to a nanosecond.
        let millis = (quota.replenish_interval() * limit).as_millis();
        let period = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        ReachedLimit::rate(limit, limit, period, key)
    }

    /// Counts an attempt under `key`, if one is left.
    pub fn take(&self, key: &str) -> AttemptResult {
        self.0.take(key, Pass::Issue)
    }

    /// Returns what the result of an attempt would be, without counting it.
    #[must_use]
    pub fn peek(&self, key: &str) -> AttemptResult {
        self.0.take(key, Pass::Preview)
    }
}
