//! Kinds of policy: the settings of a kind, what the rest of the config must know about them, and how policies are
//! built.

use std::{any::Any, fmt, sync::Arc};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::{
    BuildError, Clock, CounterStore, DenialClass, Endpoint, Fact, IdentityName, OnFailure, Per,
    Policy, PolicyName, Ports, Reads, SecretSource, StoreName,
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

    /// What a policy with these settings demands, in a few words for `check`.
    fn describe(&self) -> String;

    /// What a policy with these settings uses, reads and provides. By default it may read all claims and needs nothing
    /// else.
    fn requirements(&self) -> Requirements {
        Requirements {
            claims: Reads::All,
            ..Requirements::default()
        }
    }

    /// Finds keys that contradict each other. The types of single keys check their values.
    fn check(&self, _findings: &mut Findings) {}

    /// Builds the policy.
    ///
    /// # Errors
    ///
    /// If a store does not support what the policy needs, or for a reason of the kind's own.
    fn build(&self, context: BuildContext<'_>) -> Result<Arc<dyn Policy>, BuildError>;
}

/// Registers kinds of policy: the port that the config loader implements.
pub trait PolicyRegistry {
    /// Adds a kind.
    ///
    /// # Panics
    ///
    /// If a kind of this name exists.
    fn add<K: PolicyKind>(&mut self);
}

/// What a policy uses, reads and provides. By default a policy needs nothing, reads no claims, and its denials are [`DenialClass::Forbidden`].
#[derive(Clone, Debug, Default)]
pub struct Requirements {
    /// The class of its denials.
    pub denies_with: DenialClass,
    /// The identities that it accepts.
    pub accept: Vec<IdentityName>,
    /// The facts that policies before it must provide.
    pub needs: Vec<Fact>,
    /// The fact that it provides to the policies after it.
    pub provides: Option<Fact>,
    /// What it reads of the subject's claims.
    pub claims: Reads,
    /// What it counts by, if it counts.
    pub per: Option<Per>,
    /// Whether it allows only purposes that the operator listed.
    pub bounds_purposes: bool,
    /// The store that it uses, under the key `store`.
    pub store: Option<(StoreName, StoreUse)>,
    /// The service that it calls.
    pub service: Option<ServiceCall>,
    /// The query that it asks its store, under the key `query`.
    pub query: Option<String>,
    /// A warning, by its key, that holds if a later policy of a chain counts per workspace.
    pub if_counted_per_workspace: Option<(&'static str, &'static str)>,
    /// How the chain treats its faults, for a kind that reads `on_failure` itself.
    pub on_failure: Option<OnFailure>,
}

impl Requirements {
    /// Where the policy counts, if that is outside of this process.
    #[must_use]
    pub fn counter_store(&self) -> Option<CounterStore> {
        let (store, can_release) = match self.store.as_ref()? {
            (store, StoreUse::Quotas) => (store, true),
            (store, StoreUse::RateLimits) => (store, false),
            (_, StoreUse::Memberships | StoreUse::Sessions) => return None,
        };
        Some(CounterStore {
            store: store.clone(),
            can_release,
        })
    }
}

/// What a store is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreUse {
    /// Quotas are counted in it.
    Quotas,
    /// Rate limits are counted in it.
    RateLimits,
    /// Sessions are kept in it.
    Sessions,
    /// Memberships are looked up in it.
    Memberships,
}

/// How a policy calls a service.
#[derive(Clone, Debug)]
pub struct ServiceCall {
    /// Where it is, under the key `url`.
    pub endpoint: Endpoint,
    /// The bearer token, under the key `token`.
    pub token: Option<SecretSource>,
    /// Whether the token may be sent over plain http to another machine.
    pub insecure_http: bool,
    /// Whether the endpoint is a template in which the ids of the workspace and of the user are filled in.
    pub is_template: bool,
}

/// Problems in the settings of a policy, each with its key. An empty key means the whole table.
#[derive(Debug, Default)]
pub struct Findings {
    /// Make the config unusable.
    pub faults: Vec<(&'static str, String)>,
    /// Possible, but rarely intended.
    pub warnings: Vec<(&'static str, String)>,
}

impl Findings {
    /// Adds a fault.
    pub fn fault(&mut self, key: &'static str, message: impl Into<String>) {
        self.faults.push((key, message.into()));
    }

    /// Adds a warning.
    pub fn warning(&mut self, key: &'static str, message: impl Into<String>) {
        self.warnings.push((key, message.into()));
    }
}

/// What a policy is built with, besides its settings.
#[derive(Clone)]
pub struct BuildContext<'a> {
    /// The policy's name in the config. Counters live per name.
    pub name: &'a PolicyName,
    /// The source of time.
    pub clock: &'a Arc<dyn Clock>,
    /// What the policy needs from outside.
    pub ports: &'a dyn Ports,
    /// The policy of this name before the config was reloaded.
    pub earlier: Option<Arc<dyn Policy>>,
}

impl BuildContext<'_> {
    /// The policy of this name and type before the config was reloaded.
    #[must_use]
    pub fn earlier<P: Policy>(&self) -> Option<Arc<P>> {
        let earlier: Arc<dyn Any + Send + Sync> = self.earlier.clone()?;
        earlier.downcast().ok()
    }
}

/// The settings of one policy of any kind.
pub trait ConfiguredPolicy: fmt::Debug + Send + Sync {
    /// [`PolicyKind::NAME`]
    fn kind(&self) -> &'static str;
    /// [`PolicyKind::describe`]
    fn describe(&self) -> String;
    /// [`PolicyKind::requirements`]
    fn requirements(&self) -> Requirements;
    /// [`PolicyKind::check`]
    fn check(&self, findings: &mut Findings);
    /// [`PolicyKind::build`]
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
