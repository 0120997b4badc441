//! The state of a limit, as shown to clients.

use std::time::Duration;

use crate::PolicyName;

/// The state of a limit after an attempt: one item of the `RateLimit` fields of draft-ietf-httpapi-ratelimit-headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitState {
    /// The policy.
    pub policy: PolicyName,
    /// Units per window (`q`).
    pub limit: u64,
    /// The window's length (`w`).
    pub window: Duration,
    /// Units left (`r`).
    pub remaining: u64,
    /// Time until all units are available again (`t`).
    pub resets_in: Duration,
}
