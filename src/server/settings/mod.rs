//! The whole config file, with each section checked against the others.

mod contradictions;
mod fixed;
mod load;
mod open_routes;
mod policy;
mod routes;
mod schema;
mod stores;
mod unused;
mod upload_routes;

use policies::{IdentityName, PolicyName, Reads, StoreName, StoreUse};
use secrecy::SecretString;

use crate::{
    config::{
        EventKeys, EventsSettings, Faults, ImgwireSettings, ManagementSettings, ReadFiles,
        ServerSettings, SessionSettings, TelemetrySettings, UploadsSettings,
        outbound::ExtraAuthorities, session::SessionKeys,
    },
    gate::route_paths::RouteAction,
    identities::{IdentityKinds, ResolvedIdentity},
    stores::{Store, UsedStore},
};

pub use self::{
    fixed::Fixed,
    load::{load, load_management, load_management_token, load_with},
    policy::{PolicyKinds, PolicySettings},
    routes::{MetadataExpression, RouteSettings},
    schema::schema,
};

/// All kinds that a config may name, including the built-in ones.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    pub policies: PolicyKinds,
    pub identities: IdentityKinds,
}

/// A valid config. All names are resolved and all secrets are loaded.
#[derive(Debug)]
pub struct Settings {
    /// The sections that take effect only at start.
    pub fixed: Fixed,
    pub server: ServerSettings,
    pub management: ManagementSettings,
    pub telemetry: TelemetrySettings,
    pub imgwire: ImgwireSettings,
    pub api_key: SecretString,
    pub management_token: Option<SecretString>,
    /// CA certificates to trust in addition to the system's.
    pub authorities: ExtraAuthorities,
    pub session: Option<(SessionSettings, SessionKeys)>,
    pub stores: Vec<(StoreName, Store)>,
    /// In the order of the file.
    pub identities: Vec<(IdentityName, ResolvedIdentity)>,
    pub policies: Vec<(PolicyName, PolicySettings)>,
    pub routes: Vec<RouteSettings>,
    pub events: Option<(EventsSettings, EventKeys)>,
    pub uploads: UploadsSettings,
    /// The files that the config names, as they were read.
    pub files: ReadFiles,
    /// Settings that are valid, but rarely intended.
    pub warnings: Faults,
}

impl Settings {
    /// The store of sessions; `None` if the cookie holds them.
    #[must_use]
    pub fn session_store(&self) -> Option<&StoreName> {
        let session = self.session.as_ref();
        session.and_then(|(session, _)| session.store.name())
    }

    /// The store of the records of uploads, which is the same for all routes that have one.
    #[must_use]
    pub fn record_store(&self) -> Option<&StoreName> {
        self.routes.iter().find_map(|route| route.store.as_ref())
    }

    #[must_use]
    pub fn uses(&self, store: &StoreName, wanted: StoreUse) -> bool {
        let of_section = match wanted {
            StoreUse::Sessions => self.session_store(),
            StoreUse::Uploads => self.record_store(),
            StoreUse::Quotas | StoreUse::RateLimits | StoreUse::Memberships => None,
        };
        if of_section == Some(store) {
            return true;
        }
        self.policies.iter().any(|(_, policy)| {
            let used = policy.requirements.store.as_ref();
            used.is_some_and(|(name, how)| name == store && *how == wanted)
        })
    }

    pub(crate) fn used_stores(&self) -> impl Iterator<Item = UsedStore<'_>> {
        const USES: [StoreUse; 5] = [
            StoreUse::Quotas,
            StoreUse::RateLimits,
            StoreUse::Sessions,
            StoreUse::Memberships,
            StoreUse::Uploads,
        ];
        self.stores.iter().map(|(name, store)| {
            let uses = USES.into_iter().filter(|wanted| self.uses(name, *wanted));
            UsedStore(name, store, uses.collect())
        })
    }

    pub(crate) fn log_warnings(&self) {
        for warning in self.warnings.lines() {
            tracing::warn!(warning, "config warning");
        }
    }

    /// The claims that the policies and the metadata of all routes read.
    #[must_use]
    pub fn claims(&self) -> Reads {
        let mut reads = Reads::default();
        let is_used = |name| {
            let mut routes = self.routes.iter();
            routes.any(|route| route.policies.contains(name))
        };
        for (_, policy) in self.policies.iter().filter(|(name, _)| is_used(name)) {
            reads.merge(policy.requirements.claims.clone());
            if let Some(when) = &policy.common.when {
                reads.merge(when.claims());
            }
        }
        for expression in self.routes.iter().flat_map(RouteSettings::expressions) {
            reads.merge(expression.claims());
        }
        reads
    }

    pub(crate) fn routes_of(&self, action: RouteAction) -> impl Iterator<Item = &RouteSettings> {
        let routes = self.routes.iter();
        routes.filter(move |route| route.action == action)
    }

    #[must_use]
    pub fn policy(&self, name: &PolicyName) -> Option<&PolicySettings> {
        let mut policies = self.policies.iter();
        policies.find_map(|(candidate, policy)| (candidate == name).then_some(policy))
    }
}
