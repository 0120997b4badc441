//! What time it is by a store's own clock.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use jiff::{SignedDuration, Timestamp};
use policies::Clock;

/// Follows the clock of a store that several gates share: what it said last, and what has elapsed here since. So
/// gates whose clocks differ, or jump, find the same windows.
#[derive(Clone)]
pub(super) struct StoreClock {
    clock: Arc<dyn Clock>,
    /// The store's time less what has elapsed here, in microseconds.
    offset: Arc<AtomicI64>,
}

const UNKNOWN: i64 = i64::MIN;

impl StoreClock {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            offset: Arc::new(AtomicI64::new(UNKNOWN)),
        }
    }

    /// Notes what the store says, in microseconds since 1970.
    pub(super) fn heard(&self, micros: i64) {
        let offset = micros.saturating_sub(self.elapsed());
        self.offset.store(offset, Ordering::Relaxed);
    }

    /// The store's time, once it was heard.
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
