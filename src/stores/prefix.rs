//! `prefix` of a store.

use schemars::JsonSchema;
use serde::Deserialize;

/// What every key of a store begins with. Gates with different prefixes count separately.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
#[schemars(extend("examples" = ["imgwire-gate"]))]
pub struct KeyPrefix(String);

pub(super) const DEFAULT: &str = "imgwire-gate";

const MAX_LENGTH: usize = 64;

impl KeyPrefix {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for KeyPrefix {
    type Error = String;

    /// Braces would put all keys on one node of a cluster, and the pattern of an ACL has a meaning for `*`, `?` and
    /// brackets.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
        if text.is_empty() || text.len() > MAX_LENGTH || !text.bytes().all(is_allowed) {
            return Err(format!(
                "expected 1 to {MAX_LENGTH} of the characters A-Z, a-z, 0-9, `-`, `_`, `.`, `/` and `:`, found {text:?}; \
                 write for example prefix = \"{DEFAULT}\""
            ));
        }
        if text.ends_with(':') {
            let without = text.trim_end_matches(':');
            return Err(format!(
                "the gate adds the `:` after the prefix; write prefix = {without:?}"
            ));
        }
        Ok(Self(text))
    }
}
