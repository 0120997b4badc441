//! Stores of rate limits: the port of the kind `rate_limit`.

use std::{num::NonZeroU32, time::Duration};

use crate::{BoxFuture, Counter, Pass};

/// The two parameters of GCRA: how fast attempts return, and how many may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The emission interval, in whole microseconds.
    interval: Duration,
    /// The number of attempts that may come at once.
    burst: NonZeroU32,
}

impl Rate {
    /// Creates a rate. `interval` is rounded up to a microsecond, which is the resolution of stores.
    #[must_use]
    pub fn new(interval: Duration, burst: NonZeroU32) -> Self {
        let micros = interval.as_nanos().div_ceil(1000).max(1);
        Self {
            interval: Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)),
            burst,
        }
    }

    /// How long one attempt takes to return: the emission interval.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// The number of attempts that may come at once.
    #[must_use]
    pub fn burst(&self) -> NonZeroU32 {
        self.burst
    }

    /// The result of an allowed attempt, if all attempts have returned after `resets_in`.
    #[must_use]
    pub fn allowed(&self, resets_in: Duration) -> AttemptResult {
        let used = resets_in.as_micros().div_ceil(self.interval.as_micros());
        let used = u32::try_from(used).unwrap_or(u32::MAX);
        AttemptResult::Allowed {
            remaining: self.burst.get().saturating_sub(used),
            resets_in,
        }
    }

    /// The result of a denied attempt, if all attempts have returned after `resets_in`.
    #[must_use]
    pub fn denied(&self, resets_in: Duration) -> AttemptResult {
        AttemptResult::Denied {
            retry_after: resets_in.saturating_sub(self.interval * (self.burst.get() - 1)),
            resets_in,
        }
    }
}

/// The result of an attempt to use a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// The attempt is allowed and counted.
    Allowed {
        /// The number of further attempts that are allowed now.
        remaining: u32,
        /// The time until all attempts have returned.
        resets_in: Duration,
    },
    /// The attempt is denied, and nothing is counted.
    Denied {
        /// The time until the next attempt is allowed.
        retry_after: Duration,
        /// The time until all attempts have returned.
        resets_in: Duration,
    },
}

/// A store of rate limits that several gates share. It uses its own clock.
pub trait RateLimitStore: Send + Sync {
    /// Counts an attempt, if `rate` allows it. A [`Pass::Preview`] does not count.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`](crate::Fault) if the store fails.
    fn take(&self, counter: Counter, rate: Rate, pass: Pass) -> BoxFuture<'_, AttemptResult>;
}
