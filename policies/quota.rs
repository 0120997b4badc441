//! `quota`: a number of tokens per calendar window, in counters that survive a crash.

use std::{sync::Arc, time::Duration};

use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    BoxFuture, BuildContext, BuildError, Clock, Counter, Decision, Denial, DenialClass, Fact,
    Findings, LimitSetting, LimitState, Pass, Per, PersistentCounters, Policy, PolicyInput,
    PolicyKind, PolicyName, QuotaStore, ReachedLimit, Requirements, Reservation, StoreName,
    StoreUse, Verdict, Window, WindowUnit, Windows,
};

/// At most `limit` tokens and uploads per calendar window.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaSettings {
    /// What to count by: any of `user`, `workspace`, `ip`, `purpose`, `route`. `[]` counts all requests together.
    pub per: Per,
    /// The number of tokens per window.
    pub limit: LimitSetting<u64>,
    /// The length of a window.
    pub window: WindowUnit,
    /// The IANA name of the time zone that windows are aligned to. Default: `"UTC"`.
    #[serde(default, deserialize_with = "timezone")]
    #[schemars(with = "Option<String>")]
    pub timezone: Option<TimeZone>,
    /// The store that counts: a name in `[stores]`.
    pub store: StoreName,
}

impl PolicyKind for QuotaSettings {
    const NAME: &'static str = "quota";

    fn describe(&self) -> String {
        let (limit, window) = (&self.limit, self.window.name());
        let (per, store) = (&self.per, &self.store);
        format!("{limit} per {window} {per}, counted in {store}")
    }

    fn requirements(&self) -> Requirements {
        let mut needs = self.per.needs();
        if self.limit.claim().is_some() && !needs.contains(&Fact::Subject) {
            needs.insert(0, Fact::Subject);
        }
        Requirements {
            denies_with: DenialClass::Limited,
            needs,
            claims: self.limit.claims(),
            per: Some(self.per.clone()),
            store: Some((self.store.clone(), StoreUse::Quotas)),
            ..Requirements::default()
        }
    }

    fn check(&self, findings: &mut Findings) {
        if self.limit.is_zero() {
            findings.warning("limit", "0 denies every request; write at least 1");
        }
    }

    fn build(&self, context: BuildContext<'_>) -> Result<Arc<dyn Policy>, BuildError> {
        let timezone = self.timezone.clone().unwrap_or(TimeZone::UTC);
        Ok(Arc::new(Quota {
            name: context.name.clone(),
            per: self.per.clone(),
            limit: self.limit.clone(),
            windows: Windows::new(self.window, timezone),
            store: context.ports.quotas(&self.store)?,
            clock: context.clock.clone(),
        }))
    }
}

fn timezone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TimeZone>, D::Error> {
    let name = String::deserialize(deserializer)?;
    TimeZone::get(&name).map(Some).map_err(|_| {
        D::Error::custom(format!(
            "`{name}` is not a time zone; write for example \"Europe/Berlin\""
        ))
    })
}

struct Quota {
    name: PolicyName,
    per: Per,
    limit: LimitSetting<u64>,
    windows: Windows,
    store: Arc<dyn QuotaStore>,
    clock: Arc<dyn Clock>,
}

impl Quota {
    fn counter(&self, key: String) -> Counter {
        Counter {
            policy: self.name.clone(),
            key,
        }
    }

    fn reached(&self, limit: u64, input: PolicyInput<'_>) -> Box<ReachedLimit> {
        let key = self.per.describe_key(input.request, input.facts);
        ReachedLimit::quota(limit, self.windows.unit(), key)
    }
}

/// The window that clients see: the requested one, even if a counter was moved to it after it started.
fn shown(counted_in: Window, asked: Window) -> Window {
    if counted_in.end == asked.end {
        asked
    } else {
        counted_in
    }
}

impl PersistentCounters for Quota {
    fn used<'a>(&'a self, key: &str) -> BoxFuture<'a, (u64, Window)> {
        let counter = self.counter(key.to_owned());
        Box::pin(async move {
            let asked = self.windows.at(self.store.now(&*self.clock).await?);
            let (used, window) = self.store.used(counter, asked).await?;
            Ok((used, shown(window, asked)))
        })
    }

    fn give_back<'a>(&'a self, key: &str) -> BoxFuture<'a, ()> {
        let counter = self.counter(key.to_owned());
        Box::pin(async move {
            let window = self.windows.at(self.store.now(&*self.clock).await?);
            self.store.give_back(counter, window).await
        })
    }
}

impl Policy for Quota {
    fn counters(&self) -> Option<&dyn PersistentCounters> {
        Some(self)
    }

    fn decide<'a>(&'a self, input: PolicyInput<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            let now = self.store.now(&*self.clock).await?;
            let limit = self.limit.of(input.facts);
            let asked = self.windows.at(now);
            let counter = self.counter(self.per.key(input.request, input.facts));
            let (verdict, used, window) = match input.pass {
                Pass::Issue | Pass::Resume => {
                    match self.store.reserve(counter, asked, limit).await? {
                        Reservation::Granted { hold, used, window } => {
                            (Some(Verdict::Hold(hold)), used, window)
                        }
                        Reservation::Exhausted { window } => (None, limit, window),
                    }
                }
                Pass::Repeat => {
                    let (used, window) = self.store.used(counter, asked).await?;
                    (Some(Verdict::Allow), used, window)
                }
                Pass::Preview => {
                    let (used, window) = self.store.used(counter, asked).await?;
                    ((used < limit).then_some(Verdict::Allow), used, window)
                }
            };
            let window = shown(window, asked);
            let resets_in = window.ends_in(now);
            let verdict = verdict.unwrap_or_else(|| {
                Verdict::Deny(Denial::QuotaExhausted {
                    note: self.limit.why_default(input.facts),
                    retry_after: resets_in,
                    reached: self.reached(limit, input),
                })
            });
            let mut decision = Decision::from(verdict);
            if input.pass == Pass::Preview {
                decision.note = self.limit.why_default(input.facts);
            }
            Ok(decision.with_limit(LimitState {
                policy: self.name.clone(),
                limit,
                window: Duration::from_secs(window.seconds()),
                remaining: limit.saturating_sub(used),
                resets_in,
            }))
        })
    }
}
