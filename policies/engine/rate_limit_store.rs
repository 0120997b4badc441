//! Stores of rate limits, and the results of attempts.

use std::{num::NonZeroU32, time::Duration};

use crate::{BoxFuture, Counter, Pass};

/// How fast attempts return, and how many may come at once: the two parameters of GCRA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How long one attempt takes to return: the emission interval, in whole microseconds.
    interval: Duration,
    /// How many may come at once.
    burst: NonZeroU32,
}

impl Rate {
    /// An attempt returns after `interval`, rounded up to a microsecond, which is the resolution of stores.
    #[must_use]
    pub fn new(interval: Duration, burst: NonZeroU32) -> Self {
        let micros = interval.as_nanos().div_ceil(1000).max(1);
        Self {
            interval: Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)),
            burst,
        }
    }

    /// How long one attempt takes to return.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// How many may come at once.
    #[must_use]
    pub fn burst(&self) -> NonZeroU32 {
        self.burst
    }

    /// The result of an allowed attempt, if everything will have returned after `resets_in`.
    #[must_use]
    pub fn allowed(&self, resets_in: Duration) -> AttemptResult {
        let used = resets_in.as_micros().div_ceil(self.interval.as_micros());
        let used = u32::try_from(used).unwrap_or(u32::MAX);
        AttemptResult::Allowed {
            remaining: self.burst.get().saturating_sub(used),
            resets_in,
        }
    }

    /// The result of a denied attempt, if everything will have returned after `resets_in`.
    #[must_use]
    pub fn denied(&self, resets_in: Duration) -> AttemptResult {
        AttemptResult::Denied {
            retry_after: resets_in.saturating_sub(self.interval * (self.burst.get() - 1)),
            resets_in,
        }
    }
}

/// The result of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// It is allowed.
    Allowed {
        /// How many more would be allowed now.
        remaining: u32,
        /// When all attempts will have returned.
        resets_in: Duration,
    },
    /// It is denied, and nothing was counted.
    Denied {
        /// When the next attempt will be allowed.
        retry_after: Duration,
        /// When all attempts will have returned.
        resets_in: Duration,
    },
}

/// A store of rate limits that several gates share. It uses its own clock.
pub trait RateLimitStore: Send + Sync {
    /// Counts an attempt, if `rate` allows it. A [`Pass::Preview`] only looks.
    fn take(&self, counter: Counter, rate: Rate, pass: Pass) -> BoxFuture<'_, AttemptResult>;
}
