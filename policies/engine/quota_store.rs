//! Stores of quotas: the port of the kind `quota`, and the windows that they count in: hours, days, weeks and months of a
//! time zone.

use std::{
    sync::{PoisonError, RwLock},
    time::Duration,
};

use futures_util::future::{Either, Ready, ready};
use jiff::{Timestamp, ToSpan as _, ZonedDateTime, civil::Weekday, tz::TimeZone};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{BoxFuture, Clock, Counter, Fault, Hold};

/// A store of quotas.
///
/// A store keeps one window per counter and never goes back to an earlier one: for a window that starts before the
/// current one, it counts in the current one. So a clock that is set back does not reopen a window.
pub trait QuotaStore: Send + Sync {
    /// Returns the time that windows are based on. Gates that share a store use the store's time, because their own
    /// clocks may differ.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if the store fails.
    fn now<'a>(
        &'a self,
        clock: &'a dyn Clock,
    ) -> Either<Ready<Result<Timestamp, Fault>>, BoxFuture<'a, Timestamp>> {
        Either::Left(ready(Ok(clock.now())))
    }

    /// Counts one unit in `window`, unless `limit` units are counted already.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if the store fails. The unit may then stay counted.
    fn reserve(&self, counter: Counter, window: Window, limit: u64) -> BoxFuture<'_, Reservation>;

    /// Returns the number of units that are counted, and their window.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if the store fails.
    fn used(&self, counter: Counter, window: Window) -> BoxFuture<'_, (u64, Window)>;

    /// Releases all units of a counter.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if the store fails.
    fn give_back(&self, counter: Counter, window: Window) -> BoxFuture<'_, ()>;
}

/// The result of a reservation.
pub enum Reservation {
    /// One unit is reserved.
    Granted {
        /// The hold that settles the unit.
        hold: Box<dyn Hold>,
        /// The number of units in the window, including this one.
        used: u64,
        /// The window that the unit is counted in.
        window: Window,
    },
    /// The limit is reached. Nothing was counted.
    Exhausted {
        /// The window whose units are used up.
        window: Window,
    },
}

/// The length of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WindowUnit {
    /// An hour, from minute 0.
    Hour,
    /// A day, from midnight, or from when the day starts if a clock change skips midnight.
    Day,
    /// A week, from Monday (ISO 8601).
    Week,
    /// A month, from its first day.
    Month,
}

impl WindowUnit {
    /// Returns the unit as the config writes it.
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

/// A period of time. `start` belongs to it, and `end` does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first moment of the window.
    pub start: Timestamp,
    /// The first moment after the window.
    pub end: Timestamp,
}

/// The consecutive windows of a unit in a time zone.
pub struct Windows {
    unit: WindowUnit,
    timezone: TimeZone,
    latest: RwLock<Window>,
}

impl Windows {
    /// Creates the windows of `unit`, aligned to `timezone`.
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

    /// Returns the window that contains `now`. At the limits of the calendar, thousands of years away, the window is
    /// empty.
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
    /// Returns the length of the window in seconds.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        let seconds = self.end.as_second() - self.start.as_second();
        u64::try_from(seconds).unwrap_or_default()
    }

    /// Returns the time from `now` until the window ends, or zero.
    #[must_use]
    pub fn ends_in(&self, now: Timestamp) -> Duration {
        Duration::try_from(self.end.duration_since(now)).unwrap_or_default()
    }
}
