//! The rules that a reload replaces: routes, policies, identities and stores.

use std::sync::Arc;

use policies::{Chain, Policy, PolicyName, Purpose, Reads, RoutePath};

use super::readiness::Need;
use crate::{config::Messages, identities::Identities, stores::Stores};

pub struct Rules {
    /// In the order of the config file.
    pub routes: Vec<Arc<Route>>,
    pub policies: Vec<(PolicyName, Arc<dyn Policy>)>,
    pub identities: Arc<Identities>,
    /// The claims to keep in a session.
    pub session_claims: Reads,
    pub stores: Stores,
    /// What the policies of all routes depend on.
    pub needs: Vec<Need>,
}

/// A route with its chain. A request keeps its route even if the config is reloaded meanwhile.
pub struct Route {
    pub path: RoutePath,
    /// A request that names another purpose is denied.
    pub purpose: Option<Purpose>,
    pub chain: Chain,
    /// Messages for the user, by the policy that denies.
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
