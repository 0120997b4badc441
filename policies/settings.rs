//! The settings of a policy: `[policies.<name>]`.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    Clock, Dimension, Expression, ExpressionPolicy, ExpressionSettings, Policy, PolicyName, Quota,
    QuotaSettings, QuotaStore, RateLimit, RateLimitSettings, SignedIn, SignedInSettings, StoreName,
    UploadIntent, UploadIntentSettings, WorkspaceMember, WorkspaceMemberSettings,
    quota::QuotaLimit,
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
    /// A CEL expression: the policy is skipped unless it is `true`.
    #[serde(default)]
    pub when: Option<Expression>,
}

/// The settings of one policy, by its kind.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(tag = "kind", rename_all = "snake_case")]
pub enum Kind {
    /// Someone is signed in.
    SignedIn(SignedInSettings),
    /// The subject belongs to the workspace.
    WorkspaceMember(WorkspaceMemberSettings),
    /// So many attempts in a period (GCRA).
    RateLimit(RateLimitSettings),
    /// So many tokens in a window.
    Quota(QuotaSettings),
    /// What the client says that it will upload.
    UploadIntent(UploadIntentSettings),
    /// A rule in CEL.
    Expression(ExpressionSettings),
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
        }
    }

    /// What an earlier policy of the chain must have found out.
    #[must_use]
    pub fn needs(&self) -> Vec<Fact> {
        let (per, by_claim) = match self {
            Self::SignedIn(_) | Self::UploadIntent(_) | Self::Expression(_) => return Vec::new(),
            Self::WorkspaceMember(_) => return vec![Fact::Subject],
            Self::RateLimit(settings) => (settings.per(), false),
            Self::Quota(settings) => (
                &settings.per,
                matches!(settings.limit, QuotaLimit::ByClaim(_)),
            ),
        };
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
            Self::RateLimit(_) | Self::Quota(_) | Self::UploadIntent(_) | Self::Expression(_) => {
                None
            }
        }
    }

    /// What happens when it cannot tell.
    #[must_use]
    pub fn on_failure(&self) -> OnFailure {
        match self {
            Self::Quota(settings) => settings.on_failure,
            Self::Expression(settings) => settings.on_failure,
            Self::SignedIn(_)
            | Self::WorkspaceMember(_)
            | Self::RateLimit(_)
            | Self::UploadIntent(_) => OnFailure::Deny,
        }
    }

    /// Builds the policy. `store` gives the store of a name.
    pub fn build(
        &self,
        name: &PolicyName,
        clock: &Arc<dyn Clock>,
        store: impl FnOnce(&StoreName) -> Arc<dyn QuotaStore>,
    ) -> Arc<dyn Policy> {
        let name = name.clone();
        let clock = clock.clone();
        match self {
            Self::SignedIn(settings) => Arc::new(SignedIn::new(settings)),
            Self::WorkspaceMember(settings) => Arc::new(WorkspaceMember::new(settings)),
            Self::RateLimit(settings) => Arc::new(RateLimit::new(name, settings, clock)),
            Self::Quota(settings) => {
                let store = store(settings.store.get_ref());
                Arc::new(Quota::new(name, settings, store, clock))
            }
            Self::UploadIntent(settings) => Arc::new(UploadIntent::new(settings)),
            Self::Expression(settings) => Arc::new(ExpressionPolicy::new(settings, clock)),
        }
    }
}
