//! Kinds of policy: their settings, what they require of the rest of the config, and how their policies are built.

use std::{any::Any, fmt, sync::Arc};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::{
    BuildError, Clock, CounterStore, DenialClass, Endpoint, Fact, IdentityName, OnFailure, Per,
    Policy, PolicyName, Ports, Purpose, Reads, SecretSource, StoreName,
};

/// A kind of policy. The type is the kind's settings: a table `[policies.<name>]` with `kind = NAME`.
///
/// `deny_unknown_fields` makes misspelt keys faults, and the doc comments of the fields become their descriptions in
/// the JSON Schema. Keys of every kind (`when`, `mode`, `message`, `on_failure`) are read separately.
pub trait PolicyKind: DeserializeOwned + JsonSchema + fmt::Debug + Send + Sync + 'static {
    /// The name of the kind in the config.
    const NAME: &'static str;

    /// Whether its policies depend on something that can be down. If so, the config may say `on_failure = "allow"`.
    const CAN_FAIL: bool = true;

    /// Describes in a few words what the policy demands, for the output of `check`.
    fn describe(&self) -> String;

    /// Returns what the policy uses, reads and provides. By default it may read all claims and needs nothing else.
    fn requirements(&self) -> Requirements {
        Requirements {
            claims: Reads::All,
            ..Requirements::default()
        }
    }

    /// Checks the keys against each other. The type of a key has already checked its value.
    fn check(&self, _findings: &mut Findings) {}

    /// Builds a policy with these settings.
    ///
    /// # Errors
    ///
    /// If a store does not support what the policy needs, or for any other reason of the kind.
    fn build(&self, context: BuildContext<'_>) -> Result<Arc<dyn Policy>, BuildError>;
}

/// Registers kinds of policy: the port that the config loader implements.
pub trait PolicyRegistry {
    /// Adds the kind `K`.
    ///
    /// # Panics
    ///
    /// If a kind of this name exists already.
    fn add<K: PolicyKind>(&mut self);
}

/// What a policy uses, reads and provides. By default a policy needs nothing, reads no claims, and its denials are
/// [`DenialClass::Forbidden`].
#[derive(Clone, Debug, Default)]
pub struct Requirements {
    /// The class of the policy's denials.
    pub denies_with: DenialClass,
    /// The identities that the policy accepts.
    pub accept: Vec<IdentityName>,
    /// The facts that earlier policies of the chain must provide.
    pub needs: Vec<Fact>,
    /// The fact that the policy provides to later policies of the chain.
    pub provides: Option<Fact>,
    /// What the policy reads of the user's claims.
    pub claims: Reads,
    /// What the policy counts by, if it counts.
    pub per: Option<Per>,
    /// The only purposes that the policy allows. `None` if it allows any.
    pub purposes: Option<Vec<Purpose>>,
    /// The roles of the members that the policy allows, if it provides memberships.
    pub roles: Roles,
    /// The store that the key `store` names, and its use.
    pub store: Option<(StoreName, StoreUse)>,
    /// Whether the policy still decides while that store is down.
    pub decides_without_store: bool,
    /// The service that the policy calls.
    pub service: Option<ServiceCall>,
    /// The query under the key `query`.
    pub query: Option<String>,
    /// A key and a warning about it, for chains in which a later policy counts per workspace.
    pub if_counted_per_workspace: Option<(&'static str, &'static str)>,
    /// How the chain treats faults of the policy, for kinds that read `on_failure` themselves.
    pub on_failure: Option<OnFailure>,
}

impl Requirements {
    /// Returns the store in which the policy counts, if any.
    #[must_use]
    pub fn counter_store(&self) -> Option<CounterStore> {
        let (store, can_release) = match self.store.as_ref()? {
            (store, StoreUse::Quotas) => (store, true),
            (store, StoreUse::RateLimits) => (store, false),
            (_, StoreUse::Memberships | StoreUse::Sessions | StoreUse::Uploads) => {
                return None;
            }
        };
        Some(CounterStore {
            store: store.clone(),
            can_release,
        })
    }
}

/// The roles that the members of a workspace can have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Roles {
    /// Members can have any roles, or none.
    #[default]
    Any,
    /// Every member has one of these roles, and no other.
    OneOf(Vec<String>),
    /// Every member has one of these roles, and may have any others.
    AtLeastOneOf(Vec<String>),
}

/// What a policy, a route or the session uses a store for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreUse {
    /// It counts quotas.
    Quotas,
    /// It counts rate limits.
    RateLimits,
    /// It keeps sessions.
    Sessions,
    /// It answers membership queries.
    Memberships,
    /// It keeps records of uploads: which image or token belongs to whom.
    Uploads,
}

/// How a policy calls a service.
#[derive(Clone, Debug)]
pub struct ServiceCall {
    /// The URL of the service, or a template for it, under the key `url`.
    pub endpoint: Endpoint,
    /// The bearer token for the service, under the key `token`.
    pub token: Option<SecretSource>,
    /// Whether the token may be sent over plain http to another machine.
    pub insecure_http: bool,
    /// Whether the endpoint is a template in which the ids of the workspace and of the user are filled in.
    pub is_template: bool,
}

/// Problems in the settings of a policy, each with its key. An empty key stands for the whole table.
#[derive(Debug, Default)]
pub struct Findings {
    /// Problems that make the config invalid.
    pub faults: Vec<(&'static str, String)>,
    /// Settings that are valid, but rarely intended.
    pub warnings: Vec<(&'static str, String)>,
}

impl Findings {
    /// Adds a fault of `key`. The message says what is wrong and what to write instead.
    pub fn fault(&mut self, key: &'static str, message: impl Into<String>) {
        self.faults.push((key, message.into()));
    }

    /// Adds a warning about `key`.
    pub fn warning(&mut self, key: &'static str, message: impl Into<String>) {
        self.warnings.push((key, message.into()));
    }
}

/// What a policy is built from, besides its settings.
#[derive(Clone)]
pub struct BuildContext<'a> {
    /// The policy's name in the config. Counters belong to a name.
    pub name: &'a PolicyName,
    /// The source of time.
    pub clock: &'a Arc<dyn Clock>,
    /// The ports that the policy may open.
    pub ports: &'a dyn Ports,
    /// The policy of this name from before a reload of the config.
    pub earlier: Option<Arc<dyn Policy>>,
}

impl BuildContext<'_> {
    /// Returns the policy of this name from before a reload, if it has the type `P`.
    #[must_use]
    pub fn earlier<P: Policy>(&self) -> Option<Arc<P>> {
        let earlier: Arc<dyn Any + Send + Sync> = self.earlier.clone()?;
        earlier.downcast().ok()
    }
}

/// The settings of one policy of any kind.
pub trait ConfiguredPolicy: fmt::Debug + Send + Sync {
    /// Returns [`PolicyKind::NAME`].
    fn kind(&self) -> &'static str;
    /// Calls [`PolicyKind::describe`].
    fn describe(&self) -> String;
    /// Calls [`PolicyKind::requirements`].
    fn requirements(&self) -> Requirements;
    /// Calls [`PolicyKind::check`].
    fn check(&self, findings: &mut Findings);
    /// Calls [`PolicyKind::build`].
    ///
    /// # Errors
    ///
    /// As [`PolicyKind::build`].
    fn build(&self, context: BuildContext<'_>) -> Result<Arc<dyn Policy>, BuildError>;
}

impl<K: PolicyKind> ConfiguredPolicy for K {
    fn kind(&self) -> &'static str {
        K::NAME
    }

    fn describe(&self) -> String {
        PolicyKind::describe(self)
    }

    fn requirements(&self) -> Requirements {
        PolicyKind::requirements(self)
    }

    fn check(&self, findings: &mut Findings) {
        PolicyKind::check(self, findings);
    }

    fn build(&self, context: BuildContext<'_>) -> Result<Arc<dyn Policy>, BuildError> {
        PolicyKind::build(self, context)
    }
}
