//! The config file, with one file for each section. Loading parses every value, loads every named secret and reports
//! all faults at once.

mod common;
mod confine;
pub(crate) mod document;
mod fault;
mod host_pattern;
pub mod imgwire;
mod load;
pub mod origin;
pub mod outbound;
mod policy;
mod routes;
mod schema;
pub mod secret;
pub mod server;
mod service_url;
pub mod session;
mod session_cookie;
mod store;
pub mod telemetry;
pub(crate) mod url_template;

use policies::{IdentityName, PolicyName, Reads, StoreName, StoreUse};
use secrecy::SecretString;

use self::{outbound::ExtraAuthorities, session::SessionKeys};
use crate::identities::{IdentityKinds, ResolvedIdentity};

pub(crate) use self::confine::{Confines, check as check_confines};
pub use self::{
    common::{CommonSettings, Messages},
    fault::Faults,
    imgwire::ImgwireSettings,
    load::{load, load_management, load_with},
    policy::{PolicyKinds, PolicySettings},
    routes::RouteSettings,
    schema::{schema, schema_with},
    secret::Environment,
    server::{ManagementSettings, ServerSettings},
    service_url::ServiceUrl,
    session::SessionSettings,
    telemetry::TelemetrySettings,
};

pub use crate::stores::StoreSettings;
use crate::stores::UsedStore;

/// The kinds that a config may name, including the built-in ones.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    pub policies: PolicyKinds,
    pub identities: IdentityKinds,
}

/// A valid config: every name resolves and every secret is loaded.
#[derive(Debug)]
pub struct Settings {
    /// The sections that a reload does not change.
    pub fixed: Fixed,
    pub server: ServerSettings,
    pub management: ManagementSettings,
    pub telemetry: TelemetrySettings,
    pub imgwire: ImgwireSettings,
    pub api_key: SecretString,
    pub management_token: Option<SecretString>,
    /// Trusted in addition to the system's.
    pub authorities: ExtraAuthorities,
    pub session: Option<(SessionSettings, SessionKeys)>,
    pub stores: Vec<(StoreName, StoreSettings)>,
    /// In the order of the file.
    pub identities: Vec<(IdentityName, ResolvedIdentity)>,
    pub policies: Vec<(PolicyName, PolicySettings)>,
    pub routes: Vec<RouteSettings>,
    /// Possible, but rarely intended.
    pub warnings: Faults,
}

/// The sections that take effect only at start, as written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fixed(toml::Table);

impl Fixed {
    const SECTIONS: [&str; 6] = [
        "server",
        "management",
        "telemetry",
        "imgwire",
        "outbound",
        "session",
    ];

    fn new(mut document: toml::Table) -> Self {
        document.retain(|section, _| Self::SECTIONS.contains(&section));
        Self(document)
    }

    pub fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'static str> + 'a {
        let sections = Self::SECTIONS.into_iter();
        sections.filter(|section| self.0.get(*section) != other.0.get(*section))
    }
}

impl Settings {
    #[must_use]
    pub fn uses(&self, store: &StoreName, wanted: StoreUse) -> bool {
        let session = self.session.as_ref();
        let keeps_sessions = session.and_then(|(session, _)| session.store.name());
        if wanted == StoreUse::Sessions {
            return keeps_sessions.is_some_and(|name| name == store);
        }
        self.policies.iter().any(|(_, policy)| {
            let used = policy.requirements.store.as_ref();
            used.is_some_and(|(name, how)| name == store && *how == wanted)
        })
    }

    pub(crate) fn used_stores(&self) -> impl Iterator<Item = UsedStore<'_>> {
        const USES: [StoreUse; 4] = [
            StoreUse::Quotas,
            StoreUse::RateLimits,
            StoreUse::Sessions,
            StoreUse::Memberships,
        ];
        self.stores.iter().map(|(name, settings)| {
            let uses = USES.into_iter().filter(|wanted| self.uses(name, *wanted));
            UsedStore(name, settings, uses.collect())
        })
    }

    pub(crate) fn log_warnings(&self) {
        for warning in self.warnings.lines() {
            tracing::warn!(warning, "the config is valid, but rarely meant");
        }
    }

    /// The claims that the routes' policies read.
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
        reads
    }

    #[must_use]
    pub fn policy(&self, name: &PolicyName) -> Option<&PolicySettings> {
        let mut policies = self.policies.iter();
        policies.find_map(|(candidate, policy)| (candidate == name).then_some(policy))
    }
}
