//! `rate_limit`: a number of attempts per period, by the generic cell rate algorithm (GCRA).

use std::{borrow::Cow, num::NonZeroU32, sync::Arc, time::Duration};

use governor::Quota;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use crate::{
    AttemptResult, BoxFuture, BuildContext, BuildError, Clock, Counter, Decision, Denial,
    DenialClass, Interval, LimitState, OnFailure, Pass, Per, Policy, PolicyInput, PolicyKind,
    PolicyName, Rate, RateLimitStore, ReachedLimit, Requirements, StoreName, StoreUse, Verdict,
    engine::rate_limit_memory::{self, MemoryLimit},
};

/// At most `limit` attempts per period (GCRA).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Table")]
pub struct RateLimitSettings {
    per: Per,
    limit: NonZeroU32,
    period: Duration,
    max_keys: NonZeroU32,
    quota: Quota,
    /// The store that counts. `None` counts in memory.
    pub store: Option<StoreName>,
    /// What happens if the store fails.
    pub on_failure: LimitOnFailure,
}

/// What happens if the store of a rate limit fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitOnFailure {
    /// The request fails: it is neither allowed nor denied.
    #[default]
    Deny,
    /// The request continues, and is not counted.
    Allow,
    /// This process counts in its own memory.
    Local,
}

/// At most `limit` attempts per period (GCRA).
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RateLimitSettings")]
struct Table {
    /// What to count by: any of `user`, `workspace`, `ip`, `purpose`, `route`. `[]` counts all requests together.
    per: Per,
    /// The number of attempts that return in each period.
    limit: NonZeroU32,
    /// The length of a period.
    period: Interval,
    /// The number of attempts that may come at once. Default: the value of `limit`.
    #[serde(default)]
    burst: Option<NonZeroU32>,
    /// The number of keys that are counted separately in memory. Further keys share one counter.
    #[serde(default = "default_max_keys")]
    max_keys: NonZeroU32,
    /// The store that counts for all gates: a name in `[stores]`. Default: none; each gate counts in its own memory.
    #[serde(default)]
    store: Option<StoreName>,
    /// What happens if the store fails. Requires `store`. Default: `"deny"`.
    #[serde(default)]
    on_failure: Option<LimitOnFailure>,
}

impl JsonSchema for RateLimitSettings {
    fn schema_name() -> Cow<'static, str> {
        Table::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Table::json_schema(generator)
    }
}

impl PolicyKind for RateLimitSettings {
    const NAME: &'static str = "rate_limit";
    // It reads its own `on_failure`.
    const CAN_FAIL: bool = false;

    fn describe(&self) -> String {
        let burst = self.quota.burst_size();
        let mut text = format!("{} in {:?} {}", self.limit, self.period, self.per);
        if burst != self.limit {
            text.push_str(&format!(", {burst} at once"));
        }
        let store = self.store.as_ref().map_or("memory", StoreName::as_str);
        format!("{text}, counted in {store}")
    }

    fn requirements(&self) -> Requirements {
        let store = self.store.clone();
        Requirements {
            denies_with: DenialClass::Limited,
            needs: self.per.needs(),
            per: Some(self.per.clone()),
            store: store.map(|store| (store, StoreUse::RateLimits)),
            decides_without_store: self.on_failure == LimitOnFailure::Local,
            on_failure: Some(match self.on_failure {
                LimitOnFailure::Deny | LimitOnFailure::Local => OnFailure::Deny,
                LimitOnFailure::Allow => OnFailure::Allow,
            }),
            ..Requirements::default()
        }
    }

    fn build(&self, context: BuildContext<'_>) -> Result<Arc<dyn Policy>, BuildError> {
        let store = self.store.as_ref();
        let store = store.map(|store| context.ports.rate_limits(store));
        let store = store.transpose()?;
        let earlier = context.earlier::<RateLimit>();
        if let Some(earlier) = &earlier
            && earlier.settings == *self
            && store.is_none()
        {
            return Ok(earlier.clone());
        }
        let (name, clock) = (context.name.clone(), context.clock.clone());
        Ok(Arc::new(match earlier {
            Some(earlier) => earlier.changed(self, store, clock),
            None => RateLimit::new(name, self, store, clock),
        }))
    }
}

impl RateLimitSettings {
    fn reached(&self, input: PolicyInput<'_>) -> Box<ReachedLimit> {
        let (limit, burst) = (self.limit.get(), self.quota.burst_size().get());
        let key = self.per.describe_key(input.request, input.facts);
        ReachedLimit::rate(limit, burst, self.period, key)
    }
}

impl TryFrom<Table> for RateLimitSettings {
    type Error = &'static str;

    fn try_from(table: Table) -> Result<Self, Self::Error> {
        let burst = table.burst.unwrap_or(table.limit);
        let quota = rate_limit_memory::quota(table.limit, table.period, burst)?;
        if table.store.is_none() && table.on_failure.is_some() {
            return Err("`on_failure` requires `store`: a limit in memory cannot fail");
        }
        Ok(Self {
            per: table.per,
            limit: table.limit,
            period: table.period.get(),
            max_keys: table.max_keys,
            quota,
            store: table.store,
            on_failure: table.on_failure.unwrap_or_default(),
        })
    }
}

fn default_max_keys() -> NonZeroU32 {
    const { NonZeroU32::new(1_000_000).expect("a million is not zero") }
}

/// Counts attempts, in memory or in a store. An attempt counts regardless of later decisions.
pub struct RateLimit {
    name: PolicyName,
    settings: RateLimitSettings,
    cells: Cells,
}

enum Cells {
    /// Exact within the process.
    Memory(MemoryLimit),
    /// Exact across all gates.
    Shared {
        store: Arc<dyn RateLimitStore>,
        rate: Rate,
        /// Counts if the store fails.
        local: Option<MemoryLimit>,
    },
}

impl RateLimit {
    /// Builds the policy, on `store` if the settings name one.
    #[must_use]
    pub fn new(
        name: PolicyName,
        settings: &RateLimitSettings,
        store: Option<Arc<dyn RateLimitStore>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let memory = || MemoryLimit::new(settings.quota, settings.max_keys, clock);
        Self::with_cells(name, settings, store, memory)
    }

    /// Builds the policy with new settings. Attempts that are used up stay used up, at most as many as the new settings
    /// have. Counts in a store persist anyway.
    #[must_use]
    pub fn changed(
        &self,
        settings: &RateLimitSettings,
        store: Option<Arc<dyn RateLimitStore>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let memory = || match &self.cells {
            Cells::Memory(memory)
            | Cells::Shared {
                local: Some(memory),
                ..
            } => memory.changed(settings.quota, settings.max_keys),
            Cells::Shared { local: None, .. } => {
                MemoryLimit::new(settings.quota, settings.max_keys, clock)
            }
        };
        Self::with_cells(self.name.clone(), settings, store, memory)
    }

    fn with_cells(
        name: PolicyName,
        settings: &RateLimitSettings,
        store: Option<Arc<dyn RateLimitStore>>,
        memory: impl FnOnce() -> MemoryLimit,
    ) -> Self {
        let cells = match store {
            None => Cells::Memory(memory()),
            Some(store) => Cells::Shared {
                store,
                rate: Rate::new(
                    settings.quota.replenish_interval(),
                    settings.quota.burst_size(),
                ),
                local: (settings.on_failure == LimitOnFailure::Local).then(memory),
            },
        };
        Self {
            name,
            settings: settings.clone(),
            cells,
        }
    }

    /// A preview takes nothing, so it reports what is left now, of the attempts that may come at once.
    fn decision(&self, taken: AttemptResult, input: PolicyInput<'_>) -> Decision {
        let quota = &self.settings.quota;
        let (limit, returned) = match input.pass {
            Pass::Issue | Pass::Repeat | Pass::Resume => (self.settings.limit, 0),
            Pass::Preview => (quota.burst_size(), 1),
        };
        let (verdict, remaining, resets_in) = match taken {
            AttemptResult::Allowed {
                remaining,
                resets_in,
            } => {
                let resets_in = resets_in.saturating_sub(quota.replenish_interval() * returned);
                (Verdict::Allow, remaining + returned, resets_in)
            }
            AttemptResult::Denied {
                retry_after,
                resets_in,
            } => {
                let denial = Denial::RateLimited {
                    retry_after,
                    reached: self.settings.reached(input),
                };
                (Verdict::Deny(denial), 0, resets_in)
            }
        };
        Decision::from(verdict).with_limit(LimitState {
            policy: self.name.clone(),
            limit: limit.get().into(),
            window: self.settings.period,
            remaining: remaining.into(),
            resets_in,
        })
    }
}

impl Policy for RateLimit {
    fn decide<'a>(&'a self, input: PolicyInput<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            let key = self.settings.per.key(input.request, input.facts);
            let pass = input.pass;
            let (store, rate, local) = match &self.cells {
                Cells::Memory(memory) => {
                    return Ok(self.decision(memory.take(&key, pass), input));
                }
                Cells::Shared { store, rate, local } => (store, *rate, local),
            };
            let counter = Counter {
                policy: self.name.clone(),
                // The key is needed again if the store fails.
                key: key.clone(),
            };
            match (store.take(counter, rate, pass).await, local) {
                (Ok(taken), _) => Ok(self.decision(taken, input)),
                (Err(fault), None) => Err(fault),
                (Err(fault), Some(local)) => Ok(Decision {
                    tolerated_fault: Some(Box::new(fault)),
                    ..self.decision(local.take(&key, pass), input)
                }),
            }
        })
    }
}
