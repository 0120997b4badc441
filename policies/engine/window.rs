//! The windows of a quota: hours, days, weeks and months of a time zone.

use std::sync::{PoisonError, RwLock};

use jiff::{Timestamp, ToSpan as _, ZonedDateTime, civil::Weekday, tz::TimeZone};
use schemars::JsonSchema;
use serde::Deserialize;

/// How long a window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WindowUnit {
    /// From minute 0 to minute 0.
    Hour,
    /// From midnight to midnight, or whenever the day starts.
    Day,
    /// From Monday to Monday (ISO 8601).
    Week,
    /// From the first to the first.
    Month,
}

impl WindowUnit {
    /// The unit as the config writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }
}

/// A stretch of time: from `start` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first moment.
    pub start: Timestamp,
    /// The first moment after it.
    pub end: Timestamp,
}

/// Finds the window of a moment.
pub struct Windows {
    unit: WindowUnit,
    timezone: TimeZone,
    latest: RwLock<Window>,
}

impl Windows {
    /// Windows of `unit`, aligned to `timezone`.
    #[must_use]
    pub fn new(unit: WindowUnit, timezone: TimeZone) -> Self {
        let nothing = Window {
            start: Timestamp::UNIX_EPOCH,
            end: Timestamp::UNIX_EPOCH,
        };
        Self {
            unit,
            timezone,
            latest: RwLock::new(nothing),
        }
    }

    /// The window that contains `now`. At the very ends of the calendar, thousands of years away, the window ends where
    /// it starts.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Window {
        let latest = *self.latest.read().unwrap_or_else(PoisonError::into_inner);
        if latest.start <= now && now < latest.end {
            return latest;
        }
        let window = self.find(now).unwrap_or(Window {
            start: now,
            end: now,
        });
        *self.latest.write().unwrap_or_else(PoisonError::into_inner) = window;
        window
    }

    fn find(&self, now: Timestamp) -> Result<Window, jiff::Error> {
        let local = now.to_zoned_datetime(self.timezone.clone());
        let (start, end) = match self.unit {
            WindowUnit::Hour => {
                // By elapsed time, so that an hour that the clocks repeat is two windows.
                let into = i64::from(local.minute()) * 60 + i64::from(local.second());
                let second = now.as_second() - into;
                (
                    Timestamp::from_second(second)?,
                    Timestamp::from_second(second + 3600)?,
                )
            }
            WindowUnit::Day => Self::days(&local.start_of_day()?, 1)?,
            WindowUnit::Week => {
                let since_monday = local.weekday().since(Weekday::Monday);
                let monday = local.date().saturating_sub(since_monday.days());
                Self::days(
                    &monday
                        .to_zoned_datetime(self.timezone.clone())?
                        .start_of_day()?,
                    7,
                )?
            }
            WindowUnit::Month => {
                let first = local
                    .date()
                    .first_of_month()
                    .to_zoned_datetime(self.timezone.clone())?;
                let next = first.date().saturating_add(1.month());
                (
                    first.start_of_day()?.timestamp(),
                    next.to_zoned_datetime(self.timezone.clone())?
                        .start_of_day()?
                        .timestamp(),
                )
            }
        };
        Ok(Window { start, end })
    }

    fn days(start: &ZonedDateTime, days: i64) -> Result<(Timestamp, Timestamp), jiff::Error> {
        let next = start.date().checked_add(days.days())?;
        let end = next
            .to_zoned_datetime(start.time_zone().clone())?
            .start_of_day()?;
        Ok((start.timestamp(), end.timestamp()))
    }
}

impl Window {
    /// The window's length in seconds.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        let seconds = self.end.as_second() - self.start.as_second();
        u64::try_from(seconds).unwrap_or_default()
    }

    /// How long until the window ends, from `now`.
    #[must_use]
    pub fn ends_in(&self, now: Timestamp) -> std::time::Duration {
        std::time::Duration::try_from(self.end.duration_since(now)).unwrap_or_default()
    }
}
