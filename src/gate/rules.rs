//! What a reload replaces: the routes, their chains, and everything that these consist of.

use std::sync::Arc;

use policies::{Chain, Policy, PolicyName, Purpose, Reads, RoutePath};

use crate::{config::Messages, identities::Identities, stores::Stores};

pub struct Rules {
    /// In the order of the file.
    pub routes: Vec<Arc<Route>>,
    pub policies: Vec<(PolicyName, Arc<dyn Policy>)>,
    pub identities: Arc<Identities>,
    /// The claims that a session keeps.
    pub session_claims: Reads,
    pub stores: Stores,
}

/// A request keeps the route that it started with, even after a reload.
pub struct Route {
    pub path: RoutePath,
    /// What uploads are for. A client that names another purpose is denied.
    pub purpose: Option<Purpose>,
    pub chain: Chain,
    /// Texts for the user when a policy denies.
    pub messages: Arc<[(PolicyName, Messages)]>,
    pub identities: Arc<Identities>,
}

impl Rules {
    #[must_use]
    pub fn policy(&self, name: &PolicyName) -> Option<&Arc<dyn Policy>> {
        let mut policies = self.policies.iter();
        policies.find_map(|(other, policy)| (other == name).then_some(policy))
    }

    #[must_use]
    pub fn route(&self, path: &str) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| route.path.as_str() == path)
    }
}
