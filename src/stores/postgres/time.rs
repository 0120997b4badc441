//! Times as the database stores them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

pub(super) fn system_time(timestamp: Timestamp) -> SystemTime {
    let since = Duration::from_micros(timestamp.as_microsecond().unsigned_abs());
    if timestamp < Timestamp::UNIX_EPOCH {
        UNIX_EPOCH - since
    } else {
        UNIX_EPOCH + since
    }
}

/// Windows come back as written. A time outside of the calendar becomes its end.
pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX)
}

pub(super) fn micros(time: SystemTime) -> i64 {
    timestamp(time).as_microsecond()
}
