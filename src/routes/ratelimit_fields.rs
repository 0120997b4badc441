//! `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers.

use std::fmt::Write as _;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use policies::LimitState;

use crate::error::whole_seconds;

pub(crate) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Tells how the limits stand.
pub(super) fn insert(headers: &mut HeaderMap, limits: &[LimitState]) {
    if limits.is_empty() {
        return;
    }
    let mut policies = String::with_capacity(32 * limits.len());
    let mut states = String::with_capacity(32 * limits.len());
    for (index, limit) in limits.iter().enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        let (name, quota, window) = (&limit.policy, limit.limit, limit.window.as_secs().max(1));
        let (remaining, resets_in) = (limit.remaining, whole_seconds(limit.resets_in));
        // Writing to a String cannot fail.
        let _ = write!(policies, "{comma}\"{name}\";q={quota};w={window}");
        let _ = write!(states, "{comma}\"{name}\";r={remaining};t={resets_in}");
    }
    for (name, value) in [(RATELIMIT_POLICY, policies), (RATELIMIT, states)] {
        // Names of policies are letters, digits and -_. as the settings check.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
}
