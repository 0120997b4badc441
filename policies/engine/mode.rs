//! How the chain uses the results of a policy.

use schemars::JsonSchema;
use serde::Deserialize;

/// Whether a policy's denials are enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Denials are enforced.
    #[default]
    Enforce,
    /// A denial is logged and counted, and the request continues (a dry run).
    Observe,
}

/// What happens if a policy cannot decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The request fails: it is neither allowed nor denied.
    #[default]
    Deny,
    /// The request continues as if the policy allowed it.
    Allow,
}
