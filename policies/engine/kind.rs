//! Kinds of policy: the settings of a kind, what the rest of the config must know of them, and how its policies are
//! built.

use std::{any::Any, error::Error, fmt, sync::Arc};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::{
    Accept, Clock, Counting, Decider, Fault, IdentityName, Lookup, Memberships, OnFailure, Per,
    Policy, PolicyName, QuotaStore, RateLimitStore, Reads, RemoteSettings, SecretSource, StoreName,
    WorkspaceMemberSettings,
};

/// A kind of policy. The type is the kind's settings: a table `[policies.<name>]` with `kind = NAME`.
///
/// `deny_unknown_fields` makes misspelt keys faults, and the doc comments of the fields are their descriptions in the
/// JSON Schema. Keys that every kind has (`when`, `mode`, `message`, `on_failure`) are read apart.
pub trait PolicyKind: DeserializeOwned + JsonSchema + fmt::Debug + Send + Sync + 'static {
    /// The kind, as the config writes it.
    const NAME: &'static str;

    /// Whether its policies depend on something that can be down. Then the config may say `on_failure = "allow"`.
    const CAN_FAIL: bool = true;

    /// What a policy with these settings asks for, in a few words for `check`.
    fn describe(&self) -> String;

    /// What a policy with these settings uses, reads and provides. Unless a kind says otherwise, it may read all claims
    /// and needs nothing else.
    fn requirements(&self) -> Requirements {
        Requirements {
            claims: Reads::All,
            ..Requirements::default()
        }
    }

    /// Finds what is wrong with keys that do not go together. What a single key cannot be, its type says.
    fn check(&self, _findings: &mut Findings) {}

    /// Builds the policy.
    ///
    /// # Errors
    ///
    /// If a store does not do what the policy needs it for, or with a reason of the kind's own.
    fn build(&self, context: BuildContext<'_>) -> Result<Arc<dyn Policy>, BuildError>;
}

/// Where kinds of policy are registered: the port that the reader of the config implements.
pub trait PolicyRegistry {
    /// Adds a kind.
    ///
    /// # Panics
    ///
    /// If there is a kind of this name.
    fn add<K: PolicyKind>(&mut self);
}

/// What a policy uses, reads and provides. The default is a policy that needs nothing, reads no claims,
/// and denies with 403.
#[derive(Clone, Debug, Default)]
pub struct Requirements {
    /// How its denials are answered.
    pub refusal: Refusal,
    /// The identities that it accepts.
    pub accept: Vec<IdentityName>,
    /// What policies before it must have found out.
    pub needs: Vec<Fact>,
    /// What it finds out for the policies after it.
    pub provides: Option<Fact>,
    /// What it reads of the subject's claims.
    pub claims: Reads,
    /// What it counts by, if it counts.
    pub per: Option<Per>,
    /// Whether what passes it has one of the purposes that the operator listed.
    pub bounds_purposes: bool,
    /// The store that it uses, under the key `store`.
    pub store: Option<(StoreName, StoreUse)>,
    /// The service that it calls.
    pub service: Option<ServiceCall>,
    /// The query that it asks its store, under the key `query`.
    pub query: Option<String>,
    /// A warning, by its key, that holds if a later policy of a chain counts per workspace.
    pub if_counted_per_workspace: Option<(&'static str, &'static str)>,
    /// What the chain does with its faults, for a kind that reads `on_failure` itself.
    pub on_failure: Option<OnFailure>,
}

impl Requirements {
    /// Where the policy counts, if that is outside of this process.
    #[must_use]
    pub fn counting(&self) -> Option<Counting> {
        let (store, gives_back) = match self.store.as_ref()? {
            (store, StoreUse::Quotas) => (store, true),
            (store, StoreUse::RateLimits) => (store, false),
            (_, StoreUse::Memberships | StoreUse::Sessions) => return None,
        };
        Some(Counting {
            store: store.clone(),
            gives_back,
        })
    }
}

/// How a policy's denials are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refusal {
    /// The client is not signed in.
    Unauthenticated,
    /// The client may not do this.
    #[default]
    Forbidden,
    /// The client has reached a limit.
    Limited,
}

/// Something that a policy needs an earlier one to have found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Who asks; `signed_in` finds it out.
    Subject,
    /// Which workspace, as a member of it; `workspace_member` finds it out.
    Membership,
}

impl Fact {
    /// The kind of policy that finds it out.
    #[must_use]
    pub fn found_out_by(self) -> &'static str {
        match self {
            Self::Subject => "signed_in",
            Self::Membership => "workspace_member",
        }
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
    /// The bearer token, under the key `token`.
    pub token: Option<SecretSource>,
    /// Whether the URL keeps the token from others: https, or loopback.
    pub is_private: bool,
    /// Whether the config allows plain http to another machine.
    pub insecure_http: bool,
    /// Whether the user's id fills a segment of the URL's path.
    pub names_user_in_path: bool,
}

impl ServiceCall {
    /// Whether a token would travel over plain http to another machine, and the config does not allow it.
    #[must_use]
    pub fn exposes_token(&self) -> bool {
        self.token.is_some() && !self.is_private && !self.insecure_http
    }
}

/// What a kind finds in the settings of a policy, each by its key. An empty key is the table as a whole.
#[derive(Debug, Default)]
pub struct Findings {
    /// What keeps the config from being used.
    pub faults: Vec<(&'static str, String)>,
    /// What is possible, and rarely meant.
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
    /// What time it is.
    pub clock: &'a Arc<dyn Clock>,
    /// What the policy needs from outside.
    pub ports: &'a dyn Ports,
    /// The policy of this name that was in force before the config was loaded again.
    pub earlier: Option<Arc<dyn Policy>>,
}

impl BuildContext<'_> {
    /// The policy of this name and this type that was in force before the config was loaded again.
    #[must_use]
    pub fn earlier<P: Policy>(&self) -> Option<Arc<P>> {
        let earlier: Arc<dyn Any + Send + Sync> = self.earlier.clone()?;
        earlier.downcast().ok()
    }
}

/// What policies need from outside, for the policy that is being built.
pub trait Ports {
    /// The identities of these names.
    ///
    /// # Errors
    ///
    /// If there is no identity of a name.
    fn accept(&self, names: &[IdentityName]) -> Result<Accept, BuildError>;

    /// The store of a name, for quotas.
    ///
    /// # Errors
    ///
    /// If no store of this name counts quotas.
    fn quotas(&self, store: &StoreName) -> Result<Arc<dyn QuotaStore>, BuildError>;

    /// The store of a name, for rate limits.
    ///
    /// # Errors
    ///
    /// If no store of this name counts rate limits.
    fn rate_limits(&self, store: &StoreName) -> Result<Arc<dyn RateLimitStore>, BuildError>;

    /// What asks the app, or its database, for memberships.
    ///
    /// # Errors
    ///
    /// If no store of the name in `lookup` can be asked.
    fn memberships(
        &self,
        lookup: Lookup<'_>,
        settings: &WorkspaceMemberSettings,
    ) -> Result<Arc<dyn Memberships>, BuildError>;

    /// What asks the service that decides.
    fn decider(&self, settings: &RemoteSettings) -> Arc<dyn Decider>;
}

/// Why a policy cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A chain names a policy that there is not.
    #[error("there is no policy `{0}`")]
    Policy(PolicyName),
    /// A store cannot be used as the policy needs it.
    #[error(transparent)]
    Store(#[from] Fault),
    /// A reason of the kind's own.
    #[error(transparent)]
    Other(Box<dyn Error + Send + Sync>),
}

/// The settings of one policy, of whatever kind.
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
    /// As of [`PolicyKind::build`].
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
