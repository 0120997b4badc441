//! A rate limit in memory, by governor.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use governor::{
    Quota, RateLimiter, clock::Clock as _, middleware::StateInformationMiddleware, nanos::Nanos,
};

use crate::{
    AttemptResult, Clock, Pass, RateLimitSettings,
    engine::rate_limit_state::{BoundedState, GovernorClock, Probe},
};

/// The cells of one limit, exact within the process.
pub(crate) struct MemoryLimit {
    quota: Quota,
    clock: GovernorClock,
    /// The origin of the cells' times.
    start: Nanos,
    hasher: RandomState,
    cells: BoundedState,
    limiter: RateLimiter<Probe, BoundedState, GovernorClock, StateInformationMiddleware>,
}

impl MemoryLimit {
    pub(crate) fn new(settings: &RateLimitSettings, clock: Arc<dyn Clock>) -> Self {
        let cells = cells(settings, clock.clone());
        Self::with_cells(settings, clock, cells, RandomState::new())
    }

    /// The same limit with other settings. Used-up attempts stay used up, as far as the new settings have as many.
    pub(crate) fn changed(&self, settings: &RateLimitSettings) -> Self {
        let clock = self.clock.0.clone();
        let cells = cells(settings, clock.clone());
        let now = self.clock.now();
        let (before, after) = (
            self.quota.replenish_interval().as_nanos(),
            settings.quota.replenish_interval().as_nanos(),
        );
        let all = after * u128::from(settings.quota.burst_size().get());
        cells.take_over(&self.cells, |arrival| {
            // A cell holds the time when everything will have returned.
            let back_at = (self.start + arrival).as_u64();
            let used = u128::from(back_at.checked_sub(now.as_u64())?);
            let used = (used * after).div_ceil(before).min(all);
            (used > 0).then(|| u64::try_from(used).unwrap_or(u64::MAX).into())
        });
        Self::with_cells(settings, clock, cells, self.hasher.clone())
    }

    fn with_cells(
        settings: &RateLimitSettings,
        clock: Arc<dyn Clock>,
        cells: BoundedState,
        hasher: RandomState,
    ) -> Self {
        let clock = GovernorClock(clock);
        Self {
            quota: settings.quota,
            limiter: RateLimiter::new(settings.quota, cells.clone(), clock.clone()),
            cells,
            // No earlier than the limiter's own start, so that a change of settings gains nothing.
            start: clock.now(),
            clock,
            hasher,
        }
    }

    /// Counts an attempt, if one is left. A [`Pass::Preview`] only looks.
    pub(crate) fn take(&self, key: &str, pass: Pass) -> AttemptResult {
        let probe = Probe {
            cell: self.hasher.hash_one(key),
            pass,
        };
        let burst = self.quota.burst_size().get();
        match self.limiter.check_key(&probe) {
            Ok(snapshot) => {
                let remaining = snapshot.remaining_burst_capacity();
                AttemptResult::Allowed {
                    remaining,
                    resets_in: self.quota.replenish_interval() * (burst - remaining),
                }
            }
            Err(not_until) => {
                let retry_after = not_until.wait_time_from(self.clock.now());
                AttemptResult::Denied {
                    retry_after,
                    resets_in: retry_after + self.quota.replenish_interval() * (burst - 1),
                }
            }
        }
    }
}

fn cells(settings: &RateLimitSettings, clock: Arc<dyn Clock>) -> BoundedState {
    let full_burst = settings.quota.replenish_interval() * settings.quota.burst_size().get();
    BoundedState::new(clock, settings.max_keys.get(), full_burst)
}
