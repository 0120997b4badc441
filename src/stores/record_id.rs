//! The ids of records.

use jiff::Timestamp;
use parking_lot::Mutex;
use policies::Clock;
use serde::Serialize;
use uuid::{ContextV7, Uuid};

/// The id of a record: a UUID of version 7 (RFC 9562), so that ids are in the order of creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct RecordId(pub Uuid);

impl RecordId {
    /// Creates an id that is greater than all earlier ones of this process, with its time. Records in the order of their ids
    /// are in the order of these times, too.
    #[must_use]
    pub fn new(clock: &dyn Clock) -> (Self, Timestamp) {
        static ORDER: Mutex<ContextV7> = Mutex::new(ContextV7::new());

        let order = ORDER.lock();
        let now = clock.now();
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let nanoseconds = u32::try_from(now.subsec_nanosecond()).unwrap_or_default();
        let time = uuid::Timestamp::from_unix(&*order, seconds, nanoseconds);
        (Self(Uuid::new_v7(time)), now)
    }

    /// Creates an id of the millisecond after this one.
    #[must_use]
    pub fn later(self) -> Self {
        const MILLISECOND: u128 = 1 << 80;
        const RANDOM: u128 = (1 << 62) - 1;

        let random = Uuid::new_v4().as_u128() & RANDOM;
        let later = self.0.as_u128().saturating_add(MILLISECOND) & !RANDOM;
        Self(Uuid::from_u128(later | random))
    }
}
