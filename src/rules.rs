//! What a reload replaces: the routes with their chains, and all that they are made of.

use std::sync::Arc;

use policies::{
    Chain, Policy, PolicyName, Purpose, RateLimit, RateLimitSettings, Reads, RoutePath,
    settings::Messages,
};

use crate::{identities::Identities, stores::OpenStore};

/// The rules that are in force.
pub struct Rules {
    /// The routes, in the order of the file.
    pub routes: Vec<Arc<Route>>,
    /// All policies, by name.
    pub policies: Vec<(PolicyName, Arc<dyn Policy>)>,
    /// The rate limits among them, which the next rules go on with.
    pub rate_limits: Vec<(PolicyName, RateLimitSettings, Arc<RateLimit>)>,
    /// Who a request may come from.
    pub identities: Arc<Identities>,
    /// What of a subject's claims a session keeps.
    pub session_claims: Reads,
    /// Where is counted and looked up.
    pub stores: Vec<OpenStore>,
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
    /// The route at `path`.
    #[must_use]
    pub fn route(&self, path: &str) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| route.path.as_str() == path)
    }
}
