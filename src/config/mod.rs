//! The config file: one section, one file. Every value is parsed into what it means, every fault is found
//! in one go, and secrets are loaded as they are named.

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
pub mod session;
mod session_cookie;
mod size;
mod store;
pub mod telemetry;

use policies::{IdentityName, PolicyName, Reads, StoreName, StoreUse};
use secrecy::SecretString;

use self::{outbound::ExtraAuthorities, session::SessionKeys};
use crate::identities::{IdentityKinds, ResolvedIdentity};

pub(crate) use self::confine::{Confines, check as check_confines};
pub use self::{
    fault::Faults,
    imgwire::ImgwireSettings,
    load::{load, load_management, load_with},
    policy::{PolicyKinds, PolicySettings},
    routes::RouteSettings,
    schema::{schema, schema_with},
    secret::Environment,
    server::{ManagementSettings, ServerSettings},
    session::SessionSettings,
    telemetry::TelemetrySettings,
};

pub use crate::stores::StoreSettings;
use crate::stores::UsedStore;

/// The kinds that a config may name, the gate's own among them.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    /// The kinds of policy.
    pub policies: PolicyKinds,
    /// The kinds of identity.
    pub identities: IdentityKinds,
}

/// A config file that is valid as a whole: every name leads somewhere, every secret is there.
#[derive(Debug)]
pub struct Settings {
    /// What a reload leaves as it is.
    pub fixed: Fixed,
    /// `[server]`
    pub server: ServerSettings,
    /// `[management]`
    pub management: ManagementSettings,
    /// `[telemetry]`
    pub telemetry: TelemetrySettings,
    /// `[imgwire]`
    pub imgwire: ImgwireSettings,
    /// The Server API Key.
    pub api_key: SecretString,
    /// The token that opens all of the management listener, if there is one.
    pub management_token: Option<SecretString>,
    /// The authorities that are trusted besides the system's.
    pub authorities: ExtraAuthorities,
    /// `[session]` with its keys, if there are sessions.
    pub session: Option<(SessionSettings, SessionKeys)>,
    /// `[stores.*]`
    pub stores: Vec<(StoreName, StoreSettings)>,
    /// `[identities.*]`, in the order of the file.
    pub identities: Vec<(IdentityName, ResolvedIdentity)>,
    /// `[policies.*]`
    pub policies: Vec<(PolicyName, PolicySettings)>,
    /// `[[routes]]`
    pub routes: Vec<RouteSettings>,
    /// What is possible, and rarely meant.
    pub warnings: Faults,
}

/// The sections that take effect at a start alone, as they are written.
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

    /// The sections that are written differently in `other`.
    pub fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'static str> + 'a {
        let sections = Self::SECTIONS.into_iter();
        sections.filter(|section| self.0.get(*section) != other.0.get(*section))
    }
}

impl Settings {
    /// Whether any policy, or the session, uses a store in this way.
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

    /// The stores with what they are used for.
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

    /// Writes the warnings to the log.
    pub(crate) fn log_warnings(&self) {
        for warning in self.warnings.lines() {
            tracing::warn!(warning, "the config is valid, but rarely meant");
        }
    }

    /// What the routes' policies read of a subject's claims.
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

    /// A policy by its name, which a route or another section gave.
    #[must_use]
    pub fn policy(&self, name: &PolicyName) -> Option<&PolicySettings> {
        let mut policies = self.policies.iter();
        policies.find_map(|(candidate, policy)| (candidate == name).then_some(policy))
    }
}
