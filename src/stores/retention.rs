//! How long counters of past windows are kept, and when they are deleted.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use policies::{Clock, Window};

/// How long a counter is kept after its window, in addition to the window's own length. A clock can be set back by this
/// much without reopening a window.
pub(super) const RETENTION: SignedDuration = SignedDuration::from_hours(24);

/// How many rows are checked at a time.
pub(super) const PAGE: u32 = 1000;

/// The pause between two passes over the table.
const PERIOD: Duration = Duration::from_secs(60 * 60);

/// The pause between two pages, so that requests come first.
const PAUSE: Duration = Duration::from_millis(100);

/// How long to keep the counter of `window`, from `now` on.
pub(super) fn retention_of(window: Window, now: Timestamp) -> SignedDuration {
    let left = window.end.duration_since(now).max(SignedDuration::ZERO);
    left + window.end.duration_since(window.start) + RETENTION
}

/// A policy and a key.
pub(super) type RowName = (String, String);

/// When to delete old rows, from which row on, and which rows are old.
pub(super) struct CleanupSchedule {
    clock: Arc<dyn Clock>,
    /// The clock's time and its elapsed time at the start.
    started: (Timestamp, Duration),
    /// In elapsed time.
    next: Duration,
    /// The last row of the previous page, in an unfinished pass.
    after: Option<RowName>,
}

impl CleanupSchedule {
    /// The first pass begins in an hour.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let started = (clock.now(), clock.elapsed());
        Self {
            next: started.1 + PERIOD,
            after: None,
            started,
            clock,
        }
    }

    pub(super) fn due_in(&self) -> Duration {
        self.next.saturating_sub(self.clock.elapsed())
    }

    /// The last row of the previous page. At the beginning of a pass, it sorts before every row.
    pub(super) fn after(&self) -> RowName {
        self.after.clone().unwrap_or_default()
    }

    /// Schedules the page after the row `last`. After the last page or an error (`None`), the next pass begins in an hour.
    pub(super) fn schedule_next(&mut self, last: Option<RowName>) {
        let pause = if last.is_some() { PAUSE } else { PERIOD };
        self.next = self.clock.elapsed() + pause;
        self.after = last;
    }

    /// The time that decides which rows are old: the clock's time, but at most the start plus the elapsed time. So a clock
    /// that jumps ahead by mistake does not cause the deletion of counters that are still in use.
    pub(super) fn now(&self) -> Timestamp {
        let (started, elapsed_then) = self.started;
        let elapsed = self.clock.elapsed().saturating_sub(elapsed_then);
        let elapsed = SignedDuration::try_from(elapsed).unwrap_or(SignedDuration::MAX);
        let steady = started.saturating_add(elapsed).unwrap_or(Timestamp::MAX);
        steady.min(self.clock.now())
    }
}
