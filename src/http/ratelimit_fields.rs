//! `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers.

use std::fmt::Write as _;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use policies::LimitState;

use super::error::whole_seconds;

pub(super) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

pub(super) fn insert(headers: &mut HeaderMap, limits: &[LimitState]) {
    if limits.is_empty() {
        return;
    }
    let (mut policies, mut states) = (String::new(), String::new());
    for (index, limit) in limits.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        let (name, quota, remaining) = (limit.policy.as_str(), limit.limit, limit.remaining);
        let window = limit.window.as_secs().max(1);
        let resets_in = whole_seconds(limit.resets_in);
        // Writing to a `String` cannot fail.
        let _ = write!(policies, "{separator}\"{name}\";q={quota};w={window}");
        let _ = write!(states, "{separator}\"{name}\";r={remaining};t={resets_in}");
    }
    for (name, value) in [(RATELIMIT_POLICY, policies), (RATELIMIT, states)] {
        // Policy names are letters, digits and `-_.`; the settings check that.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}
