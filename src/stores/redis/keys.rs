//! The names of keys.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use policies::Counter;

use crate::outbound::digest::digest_of;

/// What every key of a store begins with.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub(super) prefix: String,
}

impl Keys {
    /// Includes the policy's name, so that an operator can find the counters of a policy.
    pub(super) fn counter(&self, kind: &str, counter: &Counter) -> String {
        let (prefix, key) = (&self.prefix, hash(&counter.key));
        format!("{prefix}:{kind}:{}:{key}", counter.policy)
    }

    /// The hash ensures that the names of keys do not suffice to use a session.
    pub(super) fn session(&self, key: &str) -> String {
        format!("{}:session:{}", self.prefix, hash(key))
    }

    pub(super) fn lease(&self, name: &str) -> String {
        format!("{}:lease:{name}", self.prefix)
    }

    /// The beginning of the keys of a probe.
    pub(super) fn probe(&self) -> String {
        format!("{}:probe", self.prefix)
    }
}

/// Half of a SHA-256, in base64url.
fn hash(text: &str) -> String {
    let digest = digest_of(text.as_bytes());
    let (half, _) = digest.split_at(16);
    URL_SAFE_NO_PAD.encode(half)
}
