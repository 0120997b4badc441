//! How long counters of past windows are kept, and when older ones are deleted.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use policies::{Clock, Window};

/// How long a counter is kept after its window, in addition to the window's own length. A clock can be set back by this
/// much without reopening a window.
pub(super) const KEPT: SignedDuration = SignedDuration::from_hours(24);

pub(super) const PAGE: u32 = 1000;

/// How often to look for old rows.
const PERIOD: Duration = Duration::from_secs(60 * 60);

/// The pause between two pages, so that requests come first.
const PAUSE: Duration = Duration::from_millis(100);

/// How long to keep the counter of `window`, from `now` on.
pub(super) fn kept_for(window: Window, now: Timestamp) -> SignedDuration {
    let left = window.end.duration_since(now).max(SignedDuration::ZERO);
    left + window.end.duration_since(window.start) + KEPT
}

pub(super) type Name = (String, String);

/// The schedule of the deletion: when, from which row, and what is old then.
pub(super) struct Cleaning {
    clock: Arc<dyn Clock>,
    /// The clock's time at the start, and what had elapsed.
    began: (Timestamp, Duration),
    /// As elapsed time.
    next: Duration,
    /// The last row of the previous page, in an unfinished pass.
    after: Option<Name>,
}

impl Cleaning {
    /// The first pass begins in an hour.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let began = (clock.now(), clock.elapsed());
        Self {
            next: began.1 + PERIOD,
            after: None,
            began,
            clock,
        }
    }

    pub(super) fn due_in(&self) -> Duration {
        self.next.saturating_sub(self.clock.elapsed())
    }

    /// The last row of the previous page. Before the first row at the beginning of a pass.
    pub(super) fn after(&self) -> Name {
        self.after.clone().unwrap_or_default()
    }

    /// Records the last row of a page: the next page follows soon. After the last page, or a fault, a pass begins in an
    /// hour.
    pub(super) fn did_page(&mut self, last: Option<Name>) {
        let pause = if last.is_some() { PAUSE } else { PERIOD };
        self.next = self.clock.elapsed() + pause;
        self.after = last;
    }

    /// The time that decides what is old: the clock's, but no later than what has elapsed since the start implies. So a
    /// clock that jumps ahead by mistake, and is corrected later, deletes nothing that still counts.
    pub(super) fn now(&self) -> Timestamp {
        let (began, elapsed_then) = self.began;
        let elapsed = self.clock.elapsed().saturating_sub(elapsed_then);
        let elapsed = SignedDuration::try_from(elapsed).unwrap_or(SignedDuration::MAX);
        let steady = began.saturating_add(elapsed).unwrap_or(Timestamp::MAX);
        steady.min(self.clock.now())
    }
}
