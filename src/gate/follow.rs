//! Follows uploads until their file has arrived and is processed, or they are abandoned.

use jiff::{SignedDuration, Timestamp};

/// The shortest time between two reads of an upload.
const SHORTEST: SignedDuration = SignedDuration::from_secs(4);

/// When an upload of this age is read next. The gap is less than half of the age, so that a result is noticed within
/// max(5 s, half of the age) even if the read is a little late.
#[must_use]
pub(super) fn next_read(created: Timestamp, now: Timestamp) -> Timestamp {
    let age = now.duration_since(created).max(SignedDuration::ZERO);
    let gap = (age / 5 * 2).max(SHORTEST);
    now.saturating_add(gap).unwrap_or(Timestamp::MAX)
}
