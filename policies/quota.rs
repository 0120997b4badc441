//! `quota`: a number of tokens per calendar window, in counters that survive a crash.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

use crate::{
    BoxFuture, BuildContext, BuildError, ClaimPath, Clock, Counter, Decision, Denial, DenialClass,
    Fact, Facts, Findings, LimitState, Pass, Per, PersistentCounters, Policy, PolicyInput,
    PolicyKind, PolicyName, QuotaStore, ReachedLimit, Reads, Requirements, Reservation, StoreName,
    StoreUse, Verdict, Window, WindowUnit, Windows, id_text,
};

/// At most `limit` tokens per calendar window.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaSettings {
    /// What to count by: any of `user`, `workspace`, `ip`, `purpose`, `route`. `[]` counts all requests together.
    pub per: Per,
    /// The number of tokens per window.
    pub limit: QuotaLimit,
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
        let limit = match &self.limit {
            QuotaLimit::Fixed(limit) => limit.to_string(),
            QuotaLimit::ByClaim(by) => format!("the number for the claim {}", by.claim),
        };
        let (window, per, store) = (self.window.name(), &self.per, &self.store);
        format!("{limit} per {window} {per}, counted in {store}")
    }

    fn requirements(&self) -> Requirements {
        let mut needs = self.per.needs();
        let mut claims = Reads::default();
        if let QuotaLimit::ByClaim(by) = &self.limit {
            claims = Reads::claim(&by.claim);
            if !needs.contains(&Fact::Subject) {
                needs.insert(0, Fact::Subject);
            }
        }
        Requirements {
            denies_with: DenialClass::Limited,
            needs,
            claims,
            per: Some(self.per.clone()),
            store: Some((self.store.clone(), StoreUse::Quotas)),
            ..Requirements::default()
        }
    }

    fn check(&self, findings: &mut Findings) {
        if self.limit == QuotaLimit::Fixed(0) {
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

/// The number of tokens per window: a fixed number, or one that depends on a claim.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
#[schemars(extend("examples" = [500]))]
pub enum QuotaLimit {
    /// The same number for all counters.
    Fixed(u64),
    /// A number for each value of a claim.
    ByClaim(LimitByClaim),
}

/// A limit that depends on a claim of the user, for example its plan.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitByClaim {
    /// The claim whose value selects the limit.
    pub claim: ClaimPath,
    /// The limit for each value of the claim: a text, an integer or a boolean.
    pub values: BTreeMap<String, u64>,
    /// The limit for any other value, and for users without the claim.
    pub default: u64,
}

impl LimitByClaim {
    fn value<'a>(&self, facts: &'a Facts) -> Option<&'a Value> {
        self.claim.get(&facts.subject.as_ref()?.claims)
    }

    /// The limit for the value of the claim, if `values` has one.
    fn selected(&self, facts: &Facts) -> Option<u64> {
        let limit = match self.value(facts)? {
            Value::Bool(flag) => self.values.get(if *flag { "true" } else { "false" }),
            value => self.values.get(&*id_text(value)?),
        };
        limit.copied()
    }

    fn why_default(&self, facts: &Facts) -> String {
        let reason = match self.value(facts) {
            None => self.claim.missing(),
            Some(_) => format!("`values` has no limit for the token's `{}`", self.claim),
        };
        format!("{reason}, so the default limit applies")
    }
}

impl<'de> Deserialize<'de> for QuotaLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LimitVisitor;

        impl<'de> Visitor<'de> for LimitVisitor {
            type Value = QuotaLimit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or { claim = \"...\", values = { ... }, default = ... }")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<QuotaLimit, E> {
                u64::try_from(number)
                    .map(QuotaLimit::Fixed)
                    .map_err(|_| E::custom("the limit must not be negative"))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<QuotaLimit, E> {
                Ok(QuotaLimit::Fixed(number))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<QuotaLimit, A::Error> {
                LimitByClaim::deserialize(MapAccessDeserializer::new(map)).map(QuotaLimit::ByClaim)
            }
        }

        deserializer.deserialize_any(LimitVisitor)
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
    limit: QuotaLimit,
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

    fn limit_of(&self, facts: &Facts) -> u64 {
        match &self.limit {
            QuotaLimit::Fixed(limit) => *limit,
            QuotaLimit::ByClaim(by) => by.selected(facts).unwrap_or(by.default),
        }
    }

    fn reached(&self, limit: u64, input: PolicyInput<'_>) -> Box<ReachedLimit> {
        let key = self.per.describe_key(input.request, input.facts);
        ReachedLimit::quota(limit, self.windows.unit(), key)
    }

    /// Says why the default limit applies, if it does.
    fn why_default(&self, facts: &Facts) -> Option<String> {
        match &self.limit {
            QuotaLimit::ByClaim(by) if by.selected(facts).is_none() => Some(by.why_default(facts)),
            QuotaLimit::Fixed(_) | QuotaLimit::ByClaim(_) => None,
        }
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
            let limit = self.limit_of(input.facts);
            let asked = self.windows.at(now);
            let counter = self.counter(self.per.key(input.request, input.facts));
            let (verdict, used, window) = match input.pass {
                Pass::Issue => match self.store.reserve(counter, asked, limit).await? {
                    Reservation::Granted { hold, used, window } => {
                        (Some(Verdict::Hold(hold)), used, window)
                    }
                    Reservation::Exhausted { window } => (None, limit, window),
                },
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
                    note: self.why_default(input.facts),
                    retry_after: resets_in,
                    reached: self.reached(limit, input),
                })
            });
            let mut decision = Decision::from(verdict);
            if input.pass == Pass::Preview {
                decision.note = self.why_default(input.facts);
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
