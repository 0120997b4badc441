//! `kind = "business_hours"`: uploads on working days, between two times of the day.

use std::sync::Arc;

use imgwire_gate::policies::{
    BoxFuture, BuildContext, BuildError, Clock, Decision, Denial, Findings, Policy, PolicyInput,
    PolicyKind, Verdict,
};
use jiff::{civil::Time, civil::Weekday, tz::TimeZone};
use schemars::JsonSchema;
use serde::Deserialize;

/// `kind = "business_hours"`: its settings.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BusinessHours {
    /// When uploads begin, for example `09:00`.
    #[schemars(with = "String")]
    opens: Time,
    /// When they end.
    #[schemars(with = "String")]
    closes: Time,
    /// The time zone, by its IANA name.
    #[serde(with = "jiff::fmt::serde::tz::required")]
    #[schemars(with = "String")]
    timezone: TimeZone,
}

impl PolicyKind for BusinessHours {
    const NAME: &'static str = "business_hours";

    fn describe(&self) -> String {
        format!(
            "between {} and {} on a working day",
            self.opens, self.closes
        )
    }

    fn check(&self, findings: &mut Findings) {
        if self.opens >= self.closes {
            findings.fault("", "`opens` must be before `closes`");
        }
    }

    fn build(&self, context: BuildContext<'_>) -> Result<Arc<dyn Policy>, BuildError> {
        Ok(Arc::new(Office {
            hours: self.clone(),
            clock: context.clock.clone(),
        }))
    }
}

/// Allows uploads while the office is open.
struct Office {
    hours: BusinessHours,
    clock: Arc<dyn Clock>,
}

impl Policy for Office {
    fn decide<'a>(&'a self, _: PolicyInput<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            let now = self.clock.now();
            let now = now.to_zoned_datetime(self.hours.timezone.clone());
            let is_weekend = matches!(now.weekday(), Weekday::Saturday | Weekday::Sunday);
            let is_open = (self.hours.opens..self.hours.closes).contains(&now.time());
            Ok(Decision::from(if is_open && !is_weekend {
                Verdict::Allow
            } else {
                Verdict::Deny(Denial::RuleForbidden("the office is closed".to_owned()))
            }))
        })
    }
}
