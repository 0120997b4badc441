//! The settings of a policy: `[policies.<name>]`.

use std::{collections::BTreeMap, fmt, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    Accept, Clock, Counting, Decider, Dimension, Expression, ExpressionPolicy, ExpressionSettings,
    IdentityName, Lookup, Memberships, Per, Policy, PolicyName, Quota, QuotaSettings, QuotaStore,
    RateLimit, RateLimitSettings, Remote, RemoteSettings, SecretSource, SignedIn, SignedInSettings,
    StoreName, UploadIntent, UploadIntentSettings, WorkspaceMember, WorkspaceMemberSettings,
};

/// Whether a policy's denials count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A denial refuses the request.
    #[default]
    Enforce,
    /// Decided, logged and counted; never denies.
    Observe,
}

/// What happens when a policy cannot tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The request fails with 500.
    #[default]
    Deny,
    /// The request goes on.
    Allow,
}

/// What every kind of policy takes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Common {
    /// Whether its denials count.
    #[serde(default)]
    pub mode: Mode,
    /// What a user may be told when it denies, by language: `{ en = "...", de = "..." }`.
    #[serde(default)]
    pub message: Option<Messages>,
    /// A CEL expression: the policy is skipped if it is `false`, and runs otherwise.
    #[serde(default)]
    pub when: Option<Expression>,
}

impl Common {
    /// Whether no request passes without an answer of the policy that counts.
    #[must_use]
    pub fn always_enforces(&self) -> bool {
        self.mode == Mode::Enforce && self.when.is_none()
    }
}

/// A text in several languages, by their tags (RFC 5646), for example `en` or `pt-BR`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "BTreeMap<String, String>")]
#[schemars(with = "BTreeMap<String, String>")]
pub struct Messages(BTreeMap<String, String>);

impl Messages {
    /// The text in the first of the wanted languages that there is, each also without its region
    /// (RFC 4647, 3.4); else in English, or else in any.
    pub fn choose<'a>(&self, wanted: impl IntoIterator<Item = &'a str>) -> &str {
        let find = |tag: &str| {
            let mut texts = self.0.iter();
            texts
                .find(|(language, _)| language.eq_ignore_ascii_case(tag))
                .map(|(_, text)| text.as_str())
        };
        wanted
            .into_iter()
            .find_map(|tag| find(tag).or_else(|| find(tag.split('-').next()?)))
            .or_else(|| find("en"))
            .or_else(|| self.0.values().next().map(String::as_str))
            .unwrap_or_default()
    }
}

impl TryFrom<BTreeMap<String, String>> for Messages {
    type Error = &'static str;

    fn try_from(texts: BTreeMap<String, String>) -> Result<Self, Self::Error> {
        let is_tag = |tag: &String| {
            !tag.is_empty() && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if texts.is_empty() {
            Err("must have a text for at least one language")
        } else if texts.keys().all(is_tag) {
            Ok(Self(texts))
        } else {
            Err("must name languages by their tags, for example `en` or `pt-BR`")
        }
    }
}

/// The settings of one policy, by its kind.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(tag = "kind", rename_all = "snake_case")]
pub enum Kind {
    /// Someone is signed in.
    SignedIn(SignedInSettings),
    /// The subject belongs to the workspace.
    WorkspaceMember(Box<WorkspaceMemberSettings>),
    /// So many attempts in a period (GCRA).
    RateLimit(RateLimitSettings),
    /// So many tokens in a window.
    Quota(QuotaSettings),
    /// What the client declares about its upload, which a token does not bind it to.
    UploadIntent(UploadIntentSettings),
    /// A rule in CEL.
    Expression(ExpressionSettings),
    /// Another service decides.
    Remote(RemoteSettings),
    /// A kind that the gate does not know by itself.
    #[schemars(skip)]
    Custom(CustomKind),
}

/// A policy of a kind that was registered beside the gate's own, with its settings.
#[derive(Clone)]
pub struct CustomKind {
    /// The kind, as the config writes it.
    pub name: &'static str,
    /// What happens when it cannot tell.
    pub on_failure: OnFailure,
    /// Builds the policy of its settings.
    pub build: Arc<dyn Fn(Context) -> Arc<dyn Policy> + Send + Sync>,
}

impl fmt::Debug for CustomKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CustomKind").field(&self.name).finish()
    }
}

/// What a policy of a registered kind is given besides its settings.
#[derive(Clone)]
pub struct Context {
    /// The policy's name in the config.
    pub name: PolicyName,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

/// What policies need from outside.
pub trait Ports {
    /// The identities of these names, which a policy accepts.
    fn accept(&self, names: &[IdentityName]) -> Accept;

    /// The store of a name.
    fn store(&self, name: &StoreName) -> Arc<dyn QuotaStore>;

    /// What asks the app, or its database, for the memberships of the policy `name`.
    fn memberships(
        &self,
        name: &PolicyName,
        lookup: Lookup<'_>,
        settings: &WorkspaceMemberSettings,
    ) -> Arc<dyn Memberships>;

    /// The rate limit `name`, which goes on with what it has counted if it was there before.
    fn rate_limit(
        &self,
        name: &PolicyName,
        settings: &RateLimitSettings,
        clock: &Arc<dyn Clock>,
    ) -> Arc<RateLimit>;

    /// What asks the service that decides for the policy `name`.
    fn decider(&self, name: &PolicyName, settings: &RemoteSettings) -> Arc<dyn Decider>;
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

/// Something that a policy needs an earlier one to have found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Who asks; found out by `signed_in`.
    Subject,
    /// Which workspace, as a member of it; found out by `workspace_member`.
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

impl Kind {
    /// The kind as the config writes it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::SignedIn(_) => "signed_in",
            Self::WorkspaceMember(_) => "workspace_member",
            Self::RateLimit(_) => "rate_limit",
            Self::Quota(_) => "quota",
            Self::UploadIntent(_) => "upload_intent",
            Self::Expression(_) => "expression",
            Self::Remote(_) => "remote",
            Self::Custom(kind) => kind.name,
        }
    }

    /// What it asks for, in a few words.
    #[must_use]
    pub fn summary(&self) -> String {
        let list = |names: &mut dyn Iterator<Item = String>| names.collect::<Vec<_>>().join(", ");
        match self {
            Self::SignedIn(settings) => {
                let accepted = list(&mut settings.accept.iter().map(|name| name.to_string()));
                format!("someone is signed in by {accepted}")
            }
            Self::WorkspaceMember(settings) => {
                let source = match (&settings.claim, &settings.url, &settings.store) {
                    (Some(claim), ..) => format!("the claim {claim}"),
                    (_, Some(_), _) => "the app".to_owned(),
                    (_, _, Some(store)) => format!("the database {}", store),
                    _ => "a table".to_owned(),
                };
                let roles = settings.roles.as_ref();
                let roles = roles.map_or_else(String::new, |roles| {
                    format!(" as {}", list(&mut roles.iter().cloned()))
                });
                format!("a member of the workspace{roles}, by {source}")
            }
            Self::RateLimit(settings) => {
                let store = settings.store.as_ref();
                let store = store.map_or("memory", |store| store.as_str());
                format!("{settings}, counted in {store}")
            }
            Self::Quota(settings) => format!("{settings}, counted in {}", settings.store),
            Self::UploadIntent(_) => "the declared purpose and file are allowed".to_owned(),
            Self::Expression(settings) => format!("{}", settings.allow),
            Self::Remote(settings) => format!("{} agrees", settings.url.as_str()),
            Self::Custom(_) => "a rule of your own".to_owned(),
        }
    }

    /// The status of its denials.
    #[must_use]
    pub fn refuses_with(&self) -> u16 {
        match self {
            Self::SignedIn(_) => 401,
            Self::RateLimit(_) | Self::Quota(_) => 429,
            _ => 403,
        }
    }

    /// What it counts by, if it counts.
    #[must_use]
    pub fn per(&self) -> Option<&Per> {
        match self {
            Self::RateLimit(settings) => Some(settings.per()),
            Self::Quota(settings) => Some(&settings.per),
            _ => None,
        }
    }

    /// Whether what passes it has one of the purposes that the operator listed.
    #[must_use]
    pub fn bounds_purposes(&self) -> bool {
        matches!(self, Self::UploadIntent(settings) if settings.purposes.is_some())
    }

    /// What an earlier policy of the chain must have found out.
    #[must_use]
    pub fn needs(&self) -> Vec<Fact> {
        if matches!(self, Self::WorkspaceMember(_)) {
            return vec![Fact::Subject];
        }
        let Some(per) = self.per() else {
            return Vec::new();
        };
        let by_claim = matches!(self, Self::Quota(settings) if settings.limit.is_by_claim());
        let mut needs = Vec::new();
        if by_claim || per.contains(Dimension::User) {
            needs.push(Fact::Subject);
        }
        if per.contains(Dimension::Workspace) {
            needs.push(Fact::Membership);
        }
        needs
    }

    /// What it finds out for the policies after it.
    #[must_use]
    pub fn finds_out(&self) -> Option<Fact> {
        match self {
            Self::SignedIn(_) => Some(Fact::Subject),
            Self::WorkspaceMember(_) => Some(Fact::Membership),
            _ => None,
        }
    }

    /// What happens when it cannot tell.
    #[must_use]
    pub fn on_failure(&self) -> OnFailure {
        match self {
            Self::Quota(settings) => settings.on_failure,
            Self::Remote(settings) => settings.on_failure,
            Self::WorkspaceMember(settings) => settings.on_failure,
            Self::Custom(kind) => kind.on_failure,
            Self::RateLimit(settings) => settings.on_failure.in_chain(),
            Self::SignedIn(_) | Self::UploadIntent(_) | Self::Expression(_) => OnFailure::Deny,
        }
    }

    /// The token that the policy asks another service with, if it has one.
    #[must_use]
    pub fn token(&self) -> Option<&SecretSource> {
        match self {
            Self::WorkspaceMember(settings) => settings.token.as_ref(),
            Self::Remote(settings) => settings.token.as_ref(),
            _ => None,
        }
    }

    /// Whether the token would travel over plain http to another machine, and the config does not allow it.
    #[must_use]
    pub fn exposes_token(&self) -> bool {
        let (is_private, insecure_http) = match self {
            Self::WorkspaceMember(settings) => (
                settings.url.as_ref().is_none_or(|url| url.is_private()),
                settings.insecure_http,
            ),
            Self::Remote(settings) => (settings.url.is_private(), settings.insecure_http),
            _ => return false,
        };
        self.token().is_some() && !is_private && !insecure_http
    }

    /// The store that the policy uses, and what for.
    #[must_use]
    pub fn store(&self) -> Option<(&StoreName, StoreUse)> {
        match self {
            Self::Quota(settings) => Some((&settings.store, StoreUse::Quotas)),
            Self::RateLimit(settings) => Some((settings.store.as_ref()?, StoreUse::RateLimits)),
            Self::WorkspaceMember(settings) => {
                let store = settings.store.as_ref()?;
                Some((store, StoreUse::Memberships))
            }
            _ => None,
        }
    }

    /// Where it counts, if that is outside of this process.
    #[must_use]
    pub fn counting(&self) -> Option<Counting> {
        let (store, gives_back) = match self.store()? {
            (store, StoreUse::Quotas) => (store, true),
            (store, StoreUse::RateLimits) => (store, false),
            (_, StoreUse::Memberships | StoreUse::Sessions) => return None,
        };
        Some(Counting {
            store: store.clone(),
            gives_back,
        })
    }

    /// Builds the policy `name`.
    pub fn build(
        &self,
        name: &PolicyName,
        clock: &Arc<dyn Clock>,
        ports: &dyn Ports,
    ) -> Arc<dyn Policy> {
        let name = name.clone();
        let clock = clock.clone();
        match self {
            Self::SignedIn(settings) => Arc::new(SignedIn::new(ports.accept(&settings.accept))),
            Self::WorkspaceMember(settings) => Arc::new(WorkspaceMember::new(settings, |lookup| {
                ports.memberships(&name, lookup, settings)
            })),
            Self::RateLimit(settings) => ports.rate_limit(&name, settings, &clock),
            Self::Quota(settings) => {
                let store = ports.store(&settings.store);
                Arc::new(Quota::new(name, settings, store, clock))
            }
            Self::UploadIntent(settings) => Arc::new(UploadIntent::new(settings)),
            Self::Expression(settings) => Arc::new(ExpressionPolicy::new(settings, clock)),
            Self::Remote(settings) => Arc::new(Remote::new(ports.decider(&name, settings), clock)),
            Self::Custom(kind) => (kind.build)(Context { name, clock }),
        }
    }
}
