//! `quota`: a number of tokens per calendar window, in counters that survive a crash.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{
    BoxFuture, BuildContext, BuildError, ClaimPath, Clock, Counter, Decision, Denial, DenialClass,
    Fact, Facts, LimitState, Pass, Per, PersistentCounters, Policy, PolicyInput, PolicyKind,
    PolicyName, QuotaStore, Reads, Requirements, Reservation, StoreName, StoreUse, Verdict, Window,
    WindowUnit, Windows,
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
    /// The IANA name of the time zone that windows are aligned to. The default is UTC.
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
    /// The limit for each value of the claim.
    pub values: BTreeMap<String, u64>,
    /// The limit for any other value, and for users without the claim.
    pub default: u64,
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
            QuotaLimit::ByClaim(by) => facts
                .subject
                .as_ref()
                .and_then(|subject| by.claim.get(&subject.claims)?.as_str())
                .and_then(|value| by.values.get(value))
                .copied()
                .unwrap_or(by.default),
        }
    }
}

impl PersistentCounters for Quota {
    fn used<'a>(&'a self, key: &str) -> BoxFuture<'a, (u64, Window)> {
        let counter = self.counter(key.to_owned());
        Box::pin(async move {
            let window = self.windows.at(self.store.now(&*self.clock).await?);
            self.store.used(counter, window).await
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
                Pass::Preview => {
                    let (used, window) = self.store.used(counter, asked).await?;
                    ((used < limit).then_some(Verdict::Allow), used, window)
                }
            };
            let resets_in = window.ends_in(now);
            let verdict = verdict.unwrap_or(Verdict::Deny(Denial::QuotaExhausted {
                retry_after: resets_in,
            }));
            Ok(Decision::from(verdict).with_limit(LimitState {
                policy: self.name.clone(),
                limit,
                window: Duration::from_secs(window.seconds()),
                remaining: limit.saturating_sub(used),
                resets_in,
            }))
        })
    }
}
