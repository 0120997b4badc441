//! The clock of a shared store.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use jiff::{SignedDuration, Timestamp};
use policies::Clock;

/// Follows the clock of a store that several gates share: its last reported time, plus the time elapsed since. So gates
/// whose clocks differ or jump use the same windows.
#[derive(Clone)]
pub(super) struct StoreClock {
    clock: Arc<dyn Clock>,
    /// The store's time minus the elapsed time of `clock`, in microseconds.
    offset: Arc<AtomicI64>,
    /// The elapsed time at the latest report, in microseconds.
    reported_at: Arc<AtomicI64>,
}

/// How long a report is valid, in microseconds.
const MAX_AGE: i64 = 1_000_000;

const UNKNOWN: i64 = i64::MIN;

impl StoreClock {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            offset: Arc::new(AtomicI64::new(UNKNOWN)),
            reported_at: Arc::default(),
        }
    }

    /// Records the store's time, in microseconds since 1970.
    pub(super) fn report(&self, micros: i64) {
        let elapsed = self.elapsed();
        let offset = micros.saturating_sub(elapsed);
        self.offset.store(offset, Ordering::Relaxed);
        self.reported_at.store(elapsed, Ordering::Relaxed);
    }

    /// Whether the store's time must be read again.
    pub(super) fn is_stale(&self) -> bool {
        self.elapsed() - self.reported_at.load(Ordering::Relaxed) >= MAX_AGE
    }

    /// `None` before the first report.
    pub(super) fn now(&self) -> Option<Timestamp> {
        let offset = self.offset.load(Ordering::Relaxed);
        if offset == UNKNOWN {
            return None;
        }
        Timestamp::UNIX_EPOCH
            .checked_add(SignedDuration::from_micros(offset + self.elapsed()))
            .ok()
    }

    fn elapsed(&self) -> i64 {
        i64::try_from(self.clock.elapsed().as_micros()).unwrap_or(i64::MAX)
    }
}
