//! `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use policies::LimitState;

use super::error::whole_seconds;

pub(super) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

pub(super) fn insert(headers: &mut HeaderMap, limits: &[LimitState]) {
    if limits.is_empty() {
        return;
    }
    let list = |item: &dyn Fn(&LimitState) -> String| {
        let items: Vec<_> = limits.iter().map(item).collect();
        items.join(", ")
    };
    let policies = list(&|limit| {
        let window = limit.window.as_secs().max(1);
        format!("\"{}\";q={};w={window}", limit.policy, limit.limit)
    });
    let states = list(&|limit| {
        let resets_in = whole_seconds(limit.resets_in);
        format!("\"{}\";r={};t={resets_in}", limit.policy, limit.remaining)
    });
    for (name, value) in [(RATELIMIT_POLICY, policies), (RATELIMIT, states)] {
        // Policy names are letters, digits and `-_.`; the settings check that.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}
