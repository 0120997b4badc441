//! The URLs of services that policies call.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

/// The URL of a service, or a template for one, as the config writes it.
///
/// The program that builds the policies parses it: when it checks the config, by [`ServiceCall`](crate::ServiceCall),
/// and in its [`Ports`](crate::Ports). `Debug` hides the text, because it may contain a password.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(description = "The URL of a service.")]
pub struct Endpoint(String);

impl Endpoint {
    /// Returns the text, unchanged and unchecked.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Endpoint")
    }
}
