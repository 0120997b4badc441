//! `rate_limit`: so many attempts in a period, by GCRA.

use std::{
    borrow::Cow,
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use governor::{
    NotUntil, Quota, RateLimiter,
    clock::Clock as _,
    middleware::{StateInformationMiddleware, StateSnapshot},
    nanos::Nanos,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use crate::{
    Clock, Deciding, Decision, Denial, Evaluating, Interval, LimitState, Per, Policy, PolicyName,
    Verdict,
    rate_limit_state::{BoundedState, GovernorClock, Probe},
};

/// Settings of `kind = "rate_limit"`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Table")]
pub struct RateLimitSettings {
    per: Per,
    limit: NonZeroU32,
    period: Duration,
    max_keys: NonZeroU32,
    quota: Quota,
}

/// Settings of `kind = "rate_limit"`, as the config writes them.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RateLimitSettings")]
struct Table {
    /// What is counted by: any of `user`, `workspace`, `ip`, `purpose`, `route`; `[]` is one for all.
    per: Per,
    /// How many attempts come back in a period.
    limit: NonZeroU32,
    /// The period.
    period: Interval,
    /// How many attempts may come at once; left out: `limit`.
    #[serde(default)]
    burst: Option<NonZeroU32>,
    /// How many keys are counted apart; beyond it new keys share one counter.
    #[serde(default = "default_max_keys")]
    max_keys: NonZeroU32,
}

impl JsonSchema for RateLimitSettings {
    fn schema_name() -> Cow<'static, str> {
        Table::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Table::json_schema(generator)
    }
}

impl RateLimitSettings {
    fn cells(&self, clock: Arc<dyn Clock>) -> BoundedState {
        let full_burst = self.quota.replenish_interval() * self.quota.burst_size().get();
        BoundedState::new(clock, self.max_keys.get(), full_burst)
    }

    /// What is counted by.
    #[must_use]
    pub fn per(&self) -> &Per {
        &self.per
    }
}

impl TryFrom<Table> for RateLimitSettings {
    type Error = &'static str;

    fn try_from(table: Table) -> Result<Self, Self::Error> {
        const LONGEST: u128 = 10 * 366 * 24 * 60 * 60 * 1_000_000_000;

        let period = table.period.get();
        let burst = table.burst.unwrap_or(table.limit);
        // Rounded up: never more than `limit` come back in a period.
        let interval = period.as_nanos().div_ceil(table.limit.get().into());
        if interval * u128::from(burst.get()) > LONGEST {
            return Err("a full burst would take more than ten years to come back");
        }
        let quota = u64::try_from(interval)
            .ok()
            .and_then(|interval| Quota::with_period(Duration::from_nanos(interval)))
            .ok_or("the period is too long for this limit")?
            .allow_burst(burst);
        Ok(Self {
            per: table.per,
            limit: table.limit,
            period,
            max_keys: table.max_keys,
            quota,
        })
    }
}

fn default_max_keys() -> NonZeroU32 {
    const { NonZeroU32::new(1_000_000).expect("a million is not zero") }
}

/// Counts attempts in memory, exact within the process. An attempt counts whatever follows it.
pub struct RateLimit {
    name: PolicyName,
    per: Per,
    limit: NonZeroU32,
    period: Duration,
    quota: Quota,
    clock: GovernorClock,
    /// What the cells' times are counted from.
    start: Nanos,
    hasher: RandomState,
    cells: BoundedState,
    limiter: RateLimiter<Probe, BoundedState, GovernorClock, StateInformationMiddleware>,
}

impl RateLimit {
    /// Builds the policy.
    #[must_use]
    pub fn new(name: PolicyName, settings: &RateLimitSettings, clock: Arc<dyn Clock>) -> Self {
        let cells = settings.cells(clock.clone());
        Self::with_cells(name, settings, clock, cells, RandomState::new())
    }

    /// Builds the policy with other settings: who has used up so many attempts has used up as many still,
    /// or all that there are.
    #[must_use]
    pub fn changed(&self, settings: &RateLimitSettings) -> Self {
        let clock = self.clock.0.clone();
        let cells = settings.cells(clock.clone());
        let now = self.clock.now();
        let (before, after) = (
            self.quota.replenish_interval().as_nanos(),
            settings.quota.replenish_interval().as_nanos(),
        );
        let all = after * u128::from(settings.quota.burst_size().get());
        cells.take_over(&self.cells, |arrival| {
            // A cell says when everything will have come back.
            let back_at = (self.start + arrival).as_u64();
            let used = u128::from(back_at.checked_sub(now.as_u64())?);
            let used = (used * after).div_ceil(before).min(all);
            (used > 0).then(|| u64::try_from(used).unwrap_or(u64::MAX).into())
        });
        let hasher = self.hasher.clone();
        Self::with_cells(self.name.clone(), settings, clock, cells, hasher)
    }

    fn with_cells(
        name: PolicyName,
        settings: &RateLimitSettings,
        clock: Arc<dyn Clock>,
        cells: BoundedState,
        hasher: RandomState,
    ) -> Self {
        let clock = GovernorClock(clock);
        let limiter = RateLimiter::new(settings.quota, cells.clone(), clock.clone());
        Self {
            name,
            per: settings.per.clone(),
            limit: settings.limit,
            period: settings.period,
            quota: settings.quota,
            cells,
            limiter,
            // No earlier than the limiter's own start, so that nothing is won when it is changed.
            start: clock.now(),
            clock,
            hasher,
        }
    }

    fn state(&self, remaining: u32, resets_in: Duration) -> Option<LimitState> {
        Some(LimitState {
            policy: self.name.clone(),
            limit: self.limit.get().into(),
            window: self.period,
            remaining: remaining.into(),
            resets_in,
        })
    }

    fn allowed(&self, snapshot: &StateSnapshot) -> Decision {
        let remaining = snapshot.remaining_burst_capacity();
        let spent = self.quota.burst_size().get() - remaining;
        Decision {
            verdict: Verdict::Allow,
            limit: self.state(remaining, self.quota.replenish_interval() * spent),
        }
    }

    fn denied(&self, not_until: &NotUntil<Nanos>) -> Decision {
        let retry_after = not_until.wait_time_from(self.clock.now());
        let others = self.quota.burst_size().get() - 1;
        Decision {
            verdict: Verdict::Deny(Denial::RateLimited { retry_after }),
            limit: self.state(0, retry_after + self.quota.replenish_interval() * others),
        }
    }
}

impl Policy for RateLimit {
    fn decide<'a>(&'a self, evaluating: Evaluating<'a>) -> Deciding<'a> {
        Box::pin(async move {
            let key = self.per.key(evaluating.request, evaluating.facts);
            let probe = Probe {
                cell: self.hasher.hash_one(&key),
                pass: evaluating.pass,
            };
            Ok(match self.limiter.check_key(&probe) {
                Ok(snapshot) => self.allowed(&snapshot),
                Err(not_until) => self.denied(&not_until),
            })
        })
    }
}
