//! Time: the injected [`Clock`], which all code takes that needs the time, and the windows of quotas: hours, days, weeks
//! and months of a time zone.

use std::time::{Duration, Instant};

use jiff::{Timestamp, ToSpan as _, ZonedDateTime, civil::Weekday, tz::TimeZone};
use parking_lot::RwLock;
use schemars::JsonSchema;
use serde::Deserialize;

/// A source of time.
pub trait Clock: Send + Sync {
    /// Returns the time of day, which may jump.
    fn now(&self) -> Timestamp;

    /// Returns the time since a fixed moment. It never decreases.
    fn elapsed(&self) -> Duration;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Creates a clock whose [`Clock::elapsed`] starts at zero.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the clock"
    )]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the clock"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
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

    pub(crate) fn unit(&self) -> WindowUnit {
        self.unit
    }

    /// Returns the window that contains `now`. At the limits of the calendar, thousands of years away, the window is
    /// empty.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Window {
        let latest = *self.latest.read();
        if latest.start <= now && now < latest.end {
            return latest;
        }
        let window = self.find(now).unwrap_or(Window {
            start: now,
            end: now,
        });
        *self.latest.write() = window;
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
    /// Returns the window of a counter after `asked` was requested, and its units there. Before, it had `used` units in
    /// this window.
    ///
    /// - If this window is over when `asked` starts, the counter starts at zero.
    /// - If the windows overlap, the units count on until the end of `asked`. Windows of one setting do not overlap, so
    ///   the setting was changed, and any of the units may belong to `asked`.
    /// - If `asked` is over when this window starts, the clock was set back. The counter stays in its window.
    ///
    /// The start of a counter's window never goes back. So a unit still counts if the window starts when the window that
    /// it was counted in started.
    #[must_use]
    pub fn follow(self, used: u64, asked: Self) -> (Self, u64) {
        if self.end <= asked.start {
            return (asked, 0);
        }
        let start = self.start.max(asked.start);
        let end = if self.start < asked.end {
            asked.end
        } else {
            self.end
        };
        (Self { start, end }, used)
    }

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
