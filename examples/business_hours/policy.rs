//! `kind = "business_hours"`: uploads on working days, between two times of the day.

use std::sync::Arc;

use imgwire_gate::policies::{
    Clock, Deciding, Decision, Denial, Evaluating, Policy, Verdict, settings::Context,
};
use jiff::{civil::Time, civil::Weekday, tz::TimeZone};
use schemars::JsonSchema;
use serde::Deserialize;

/// Settings of `kind = "business_hours"`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, try_from = "Table")]
#[schemars(with = "Table")]
pub(crate) struct Settings(Table);

/// The same, as the config writes them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Table {
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

impl TryFrom<Table> for Settings {
    type Error = &'static str;

    fn try_from(table: Table) -> Result<Self, Self::Error> {
        if table.opens < table.closes {
            Ok(Self(table))
        } else {
            Err("`opens` must be before `closes`")
        }
    }
}

/// Lets uploads in while the office is open.
pub(crate) struct BusinessHours {
    hours: Table,
    clock: Arc<dyn Clock>,
}

impl BusinessHours {
    pub(crate) fn new(Settings(hours): Settings, context: Context) -> Self {
        Self {
            hours,
            clock: context.clock,
        }
    }
}

impl Policy for BusinessHours {
    fn decide<'a>(&'a self, _: Evaluating<'a>) -> Deciding<'a> {
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
