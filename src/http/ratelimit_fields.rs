//! `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use policies::LimitState;

use crate::http::error::whole_seconds;

pub(crate) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

pub(super) fn insert(headers: &mut HeaderMap, limits: &[LimitState]) {
    if limits.is_empty() {
        return;
    }
    let mut policies = String::with_capacity(48 * limits.len());
    let mut states = String::with_capacity(48 * limits.len());
    for limit in limits {
        let name = limit.policy.as_str();
        let window = limit.window.as_secs().max(1);
        push(&mut policies, name, [(";q=", limit.limit), (";w=", window)]);
        let resets_in = whole_seconds(limit.resets_in);
        push(
            &mut states,
            name,
            [(";r=", limit.remaining), (";t=", resets_in)],
        );
    }
    for (name, value) in [(RATELIMIT_POLICY, policies), (RATELIMIT, states)] {
        // Policy names are letters, digits and `-_.`; the settings check that.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

/// Adds an item with its parameters to a list (RFC 9651).
fn push(list: &mut String, name: &str, parameters: [(&str, u64); 2]) {
    if !list.is_empty() {
        list.push_str(", ");
    }
    list.push('"');
    list.push_str(name);
    list.push('"');
    for (key, value) in parameters {
        list.push_str(key);
        list.push_str(itoa::Buffer::new().format(value));
    }
}
