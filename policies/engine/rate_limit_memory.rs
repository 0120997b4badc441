//! Rate limits in memory, by governor.

use std::{
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use governor::{
    Quota, RateLimiter, clock::Clock as _, middleware::StateInformationMiddleware, nanos::Nanos,
};

use crate::{
    AttemptResult, Clock, Interval, Pass,
    engine::rate_limit_state::{BoundedState, GovernorClock, Probe},
};

/// The parameters of a limit: `limit` attempts return in each `period`, and up to `burst` may come at once. The error
/// says why the limit cannot be counted.
pub(crate) fn quota(
    limit: NonZeroU32,
    period: Interval,
    burst: NonZeroU32,
) -> Result<Quota, &'static str> {
    const LONGEST: u128 = 10 * 366 * 24 * 60 * 60 * 1_000_000_000;

    // Rounded up, so that never more than `limit` return in a period.
    let interval = period.get().as_nanos().div_ceil(limit.get().into());
    if interval * u128::from(burst.get()) > LONGEST {
        return Err("a full burst would take more than ten years to return");
    }
    let quota = u64::try_from(interval).ok();
    let quota = quota.and_then(|interval| Quota::with_period(Duration::from_nanos(interval)));
    let quota = quota.ok_or("the period is too long for this limit")?;
    Ok(quota.allow_burst(burst))
}

/// A limit in memory, exact within the process.
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
    pub(crate) fn new(quota: Quota, max_keys: NonZeroU32, clock: Arc<dyn Clock>) -> Self {
        let cells = cells(quota, max_keys, clock.clone());
        Self::with_cells(quota, clock, cells, RandomState::new())
    }

    /// The same limit with new settings. Attempts that are used up stay used up, at most as many as the new settings
    /// have.
    pub(crate) fn changed(&self, quota: Quota, max_keys: NonZeroU32) -> Self {
        let clock = self.clock.0.clone();
        let cells = cells(quota, max_keys, clock.clone());
        let now = self.clock.now();
        let (before, after) = (
            self.quota.replenish_interval().as_nanos(),
            quota.replenish_interval().as_nanos(),
        );
        let all = after * u128::from(quota.burst_size().get());
        cells.take_over(&self.cells, |arrival| {
            // A cell holds the time when all attempts have returned.
            let back_at = (self.start + arrival).as_u64();
            let used = u128::from(back_at.checked_sub(now.as_u64())?);
            let used = (used * after).div_ceil(before).min(all);
            (used > 0).then(|| u64::try_from(used).unwrap_or(u64::MAX).into())
        });
        Self::with_cells(quota, clock, cells, self.hasher.clone())
    }

    fn with_cells(
        quota: Quota,
        clock: Arc<dyn Clock>,
        cells: BoundedState,
        hasher: RandomState,
    ) -> Self {
        let clock = GovernorClock(clock);
        Self {
            quota,
            limiter: RateLimiter::new(quota, cells.clone(), clock.clone()),
            cells,
            // Not earlier than the start of the limiter, so that a change of settings returns no attempts.
            start: clock.now(),
            clock,
            hasher,
        }
    }

    /// Counts an attempt, if one is left. A [`Pass::Preview`] does not count.
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

fn cells(quota: Quota, max_keys: NonZeroU32, clock: Arc<dyn Clock>) -> BoundedState {
    let full_burst = quota.replenish_interval() * quota.burst_size().get();
    BoundedState::new(clock, max_keys.get(), full_burst)
}
