//! What an identity keeps of the claims that it checked.

use std::sync::Arc;

use policies::{Claims, Reads};
use serde_json::Value;

use super::claim_rules::shown;
use crate::outbound::cache::Weigh as _;

/// How deep a claim that is kept may be nested.
const MAX_NESTING: usize = 16;

/// What the claims that are kept may take in memory, in bytes. That is much more than their text has: an object of one
/// member takes about a kilobyte.
const MAX_BYTES: usize = 128 << 10;

/// Keeps the part of the claims that policies and sessions read, within bounds.
#[derive(Clone)]
pub struct KeptClaims(Arc<Reads>);

impl KeptClaims {
    pub(super) fn new(reads: &Reads) -> Self {
        Self(Arc::new(reads.clone()))
    }

    /// The part of `claims` that is read.
    ///
    /// # Errors
    ///
    /// What is beyond the bounds, for the log.
    pub fn of(&self, claims: &Claims) -> Result<Claims, String> {
        let kept = self.0.of(claims);
        for (name, value) in &kept {
            if is_deeper(value, MAX_NESTING) {
                return Err(format!(
                    "the claim `{}` is nested deeper than {MAX_NESTING} levels",
                    shown(name)
                ));
            }
        }
        if kept.heap() > MAX_BYTES {
            return Err(format!(
                "the claims that policies read take more than {} KiB of memory",
                MAX_BYTES >> 10
            ));
        }
        Ok(kept)
    }
}

/// Whether lists and objects stand within each other on more than `levels` levels.
fn is_deeper(value: &Value, levels: usize) -> bool {
    let mut inner: Box<dyn Iterator<Item = &Value>> = match value {
        Value::Array(values) => Box::new(values.iter()),
        Value::Object(members) => Box::new(members.values()),
        _ => return false,
    };
    levels == 0 || inner.any(|value| is_deeper(value, levels - 1))
}
