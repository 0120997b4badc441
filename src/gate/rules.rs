//! The rules that a reload replaces: routes, policies, identities and stores.

use std::{sync::Arc, time::Duration};

use policies::{
    Chain, Counter, FactExpression, Interval, Policy, PolicyName, Purpose, Reads, RoutePath,
    WorkspaceId,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    event_receiver::EventReceiver,
    idempotency::StoreSecret,
    needs::Need,
    route_paths::{RoutePaths, Target},
};
use crate::{
    config::Messages,
    identities::Identities,
    stores::{Origin, ReadRate, RecordStore, Stores},
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
    /// How many images background work may read.
    pub reads: ReadRate,
    /// Whether the app gets events about uploads.
    pub sends_events: bool,
    /// Where the events go.
    pub receiver: Option<Arc<EventReceiver>>,
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
    /// When an upload without a file is deleted.
    pub abandon_after: Interval,
    pub on_mismatch: OnMismatch,
}

/// When an upload without a file is deleted, by default and if its route does not exist any more.
pub const ABANDON_AFTER: Interval = Interval::from_secs(60 * 60);

/// What happens to an image whose real type or size differs from what the client declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnMismatch {
    /// The log and an event report it.
    #[default]
    Report,
    /// It is deleted.
    Delete,
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

    fn uploads(&self, route: &RoutePath) -> Option<&UploadRoute> {
        match &self.route(route.as_str())?.action {
            Action::Upload(uploads) => Some(uploads),
            Action::Token(_) => None,
        }
    }

    /// When an upload of a route without a file is deleted.
    #[must_use]
    pub fn abandon_after(&self, route: &RoutePath) -> Duration {
        let uploads = self.uploads(route);
        uploads
            .map_or(ABANDON_AFTER, |uploads| uploads.abandon_after)
            .get()
    }

    #[must_use]
    pub fn on_mismatch(&self, route: &RoutePath) -> OnMismatch {
        let uploads = self.uploads(route);
        uploads.map_or(OnMismatch::default(), |uploads| uploads.on_mismatch)
    }

    /// The counters of storage that count an image of this origin. `None` if that is unknown: the route does not exist any
    /// more, or a condition on the request decides whether one of its policies counts.
    #[must_use]
    pub fn storage_counters(&self, origin: &Origin) -> Option<Vec<Counter>> {
        let chain = &self.route(origin.route.as_str())?.chain;
        let workspace = origin.workspace.as_ref();
        let mut counters = Vec::new();
        for link in chain.links() {
            if let Some(counter) = link.policy.storage_counter(&origin.subject, workspace) {
                if link.when.is_some() {
                    return None;
                }
                counters.push(counter);
            }
        }
        Some(counters)
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
