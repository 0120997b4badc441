//! The rules that a reload replaces: routes, policies, identities and stores.

use std::sync::Arc;

use policies::{
    Chain, FactExpression, Interval, Policy, PolicyName, Purpose, Reads, RoutePath, WorkspaceId,
};

use super::{
    idempotency::StoreSecret,
    needs::Need,
    route_paths::{RoutePaths, Target},
};
use crate::{
    config::Messages,
    identities::Identities,
    stores::{RecordStore, Stores},
};

pub struct Rules {
    /// In the order of the config file.
    pub routes: Vec<Arc<Route>>,
    pub policies: Vec<(PolicyName, Arc<dyn Policy>)>,
    pub identities: Arc<Identities>,
    /// The claims to keep in a session.
    pub session_claims: Reads,
    pub stores: Stores,
    /// The records of all routes that have a `store`, which is the same one.
    pub records: Option<Arc<dyn RecordStore>>,
    /// How long records of deleted images and of issued tokens are kept.
    pub keep_records: Interval,
    /// What the policies of all routes depend on.
    pub needs: Vec<Need>,
}

/// A route with its chain. A request keeps its route even if the config is reloaded meanwhile.
pub struct Route {
    /// A template: the path of an upload route may contain `{workspace}`.
    pub path: RoutePath,
    pub paths: RoutePaths,
    /// A request that names another purpose is denied.
    pub purpose: Option<Purpose>,
    pub chain: Chain,
    /// Messages for the user, by the policy that denies.
    pub messages: Arc<[(PolicyName, Messages)]>,
    pub identities: Arc<Identities>,
    pub action: Action,
}

/// What a route does for a request that its policies allow.
pub enum Action {
    /// It issues an upload token. If there is a store, it records which token went to whom.
    Token(Option<Arc<dyn RecordStore>>),
    /// It creates an upload, and shows and deletes images.
    Upload(UploadRoute),
}

/// How a route with `action = "upload"` uploads.
pub struct UploadRoute {
    pub records: Arc<dyn RecordStore>,
    pub secret: StoreSecret,
    /// The policies of the chain that say who the client is. Reads and deletions need only these.
    pub access: Chain,
    /// Whether images belong to workspaces, because the chain has a policy that says which one.
    pub has_workspaces: bool,
    /// The server's own metadata. A client cannot set these keys.
    pub metadata: Vec<(String, FactExpression)>,
    /// The keys of the metadata that a client may set.
    pub client_metadata: Vec<String>,
    /// The roles that may delete images of others.
    pub delete_roles: Vec<String>,
}

impl UploadRoute {
    /// Whether clients see this key of an image's metadata.
    #[must_use]
    pub fn shows(&self, key: &str) -> bool {
        let mut own = self.metadata.iter();
        own.any(|(name, _)| name == key) || self.client_metadata.iter().any(|name| name == key)
    }
}

/// The route that serves a request.
pub struct Found<'r> {
    pub route: &'r Arc<Route>,
    pub target: Target,
    /// The workspace in the path.
    pub workspace: Option<WorkspaceId>,
}

impl Found<'_> {
    /// The template that the path of the request matches.
    #[must_use]
    pub fn name(&self) -> &RoutePath {
        self.route.paths.name(&self.target)
    }
}

impl Rules {
    #[must_use]
    pub fn policy(&self, name: &PolicyName) -> Option<&Arc<dyn Policy>> {
        let mut policies = self.policies.iter();
        policies.find_map(|(other, policy)| (other == name).then_some(policy))
    }

    /// The route whose path in the config is `path`.
    #[must_use]
    pub fn route(&self, path: &str) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| route.path.as_str() == path)
    }

    /// The route that serves the path of a request.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Found<'_>> {
        let mut routes = self.routes.iter();
        // Most requests are for tokens.
        if let Some(route) = routes.find(|route| route.paths.is_of_token(path)) {
            return Some(Found {
                route,
                target: Target::Token,
                workspace: None,
            });
        }
        self.routes.iter().find_map(|route| {
            let (target, workspace) = route.paths.find(path)?;
            Some(Found {
                route,
                target,
                workspace,
            })
        })
    }
}
