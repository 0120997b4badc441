//! What a reload replaces: the routes with their chains, and all that they are made of.

use std::sync::Arc;

use policies::{Chain, Messages, Policy, PolicyName, Purpose, Reads, RoutePath};

use crate::{identities::Identities, stores::Stores};

/// The rules that are in force.
pub struct Rules {
    /// The routes, in the order of the file.
    pub routes: Vec<Arc<Route>>,
    /// All policies, by name.
    pub policies: Vec<(PolicyName, Arc<dyn Policy>)>,
    /// Who a request may come from.
    pub identities: Arc<Identities>,
    /// What of a subject's claims a session keeps.
    pub session_claims: Reads,
    /// Where is counted and looked up.
    pub stores: Stores,
}

/// A route and its chain. A request keeps the one that it started with.
pub struct Route {
    /// Where it is.
    pub path: RoutePath,
    /// What uploads there are for, whatever a client says.
    pub purpose: Option<Purpose>,
    /// Who may have a token there.
    pub chain: Chain,
    /// What users may be told when a policy denies.
    pub messages: Arc<[(PolicyName, Messages)]>,
    /// Who a request may come from.
    pub identities: Arc<Identities>,
}

impl Rules {
    /// The policy of a name.
    #[must_use]
    pub fn policy(&self, name: &PolicyName) -> Option<&Arc<dyn Policy>> {
        let mut policies = self.policies.iter();
        policies.find_map(|(other, policy)| (other == name).then_some(policy))
    }

    /// The route at `path`.
    #[must_use]
    pub fn route(&self, path: &str) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| route.path.as_str() == path)
    }
}
