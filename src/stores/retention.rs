//! How long counters of past windows are kept, and when those that are older are deleted.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use policies::{Clock, Window};

/// How long a counter is kept after its window, besides the window's own length: a clock may be set back by this much
/// without opening a window again.
pub(super) const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// How many rows are looked at in one go.
pub(super) const PAGE: u32 = 1000;

/// How often old rows are looked for.
const PERIOD: Duration = Duration::from_secs(60 * 60);

/// What a database rests between two pages, so that requests come first.
const PAUSE: Duration = Duration::from_millis(100);

/// How long the counter of `window` is kept, seen from `now`.
pub(super) fn kept_for(window: Window, now: Timestamp) -> SignedDuration {
    let left = window.end.duration_since(now).max(SignedDuration::ZERO);
    left + window.end.duration_since(window.start) + KEPT
}

/// The policy and the key of a counter.
pub(super) type Name = (String, String);

/// When to look for old rows, at which of them, and what time it is then.
pub(super) struct Cleaning {
    clock: Arc<dyn Clock>,
    /// What the clock said at the start, and what had elapsed.
    began: (Timestamp, Duration),
    /// When to look next, as elapsed time.
    next: Duration,
    /// The last row that was looked at, in a pass that is not over.
    after: Option<Name>,
}

impl Cleaning {
    /// Looks for the first time in an hour.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let began = (clock.now(), clock.elapsed());
        Self {
            next: began.1 + PERIOD,
            after: None,
            began,
            clock,
        }
    }

    /// How long there is nothing to do.
    pub(super) fn due_in(&self) -> Duration {
        self.next.saturating_sub(self.clock.elapsed())
    }

    /// The last row that was looked at; before the first one at the beginning of a pass.
    pub(super) fn after(&self) -> Name {
        self.after.clone().unwrap_or_default()
    }

    /// Notes the last row of a page: the next page follows soon. After the last page, or a fault, a pass begins in an
    /// hour.
    pub(super) fn did_page(&mut self, last: Option<Name>) {
        let pause = if last.is_some() { PAUSE } else { PERIOD };
        self.next = self.clock.elapsed() + pause;
        self.after = last;
    }

    /// The time that decides what is old: the clock's, but no later than what has elapsed since the start makes it. A
    /// clock that jumps ahead by mistake, and is set right later, has deleted nothing that still counts.
    pub(super) fn now(&self) -> Timestamp {
        let (began, elapsed_then) = self.began;
        let elapsed = self.clock.elapsed().saturating_sub(elapsed_then);
        let elapsed = SignedDuration::try_from(elapsed).unwrap_or(SignedDuration::MAX);
        let steady = began.saturating_add(elapsed).unwrap_or(Timestamp::MAX);
        steady.min(self.clock.now())
    }
}
