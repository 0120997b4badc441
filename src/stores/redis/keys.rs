//! Names of keys. They are hashed, so that they do not reveal who uploads.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use policies::Counter;

use crate::outbound::digest::digest_of;

pub(super) const PREFIX: &str = "imgwire-gate";

/// Includes the policy's name, so that an operator can find the counters of a policy.
pub(super) fn counter_key(kind: &str, counter: &Counter) -> String {
    let key = hash(&counter.key);
    format!("{PREFIX}:{kind}:{}:{key}", counter.policy)
}

pub(super) fn session_key(key: &str) -> String {
    format!("{PREFIX}:session:{}", hash(key))
}

pub(super) fn lease_key(name: &str) -> String {
    format!("{PREFIX}:lease:{name}")
}

/// Half of a SHA-256, in base64url.
fn hash(text: &str) -> String {
    let digest = digest_of(text.as_bytes());
    let (half, _) = digest.split_at(16);
    URL_SAFE_NO_PAD.encode(half)
}
