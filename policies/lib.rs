//! The policies of imgwire-gate. They decide which requests get an upload token, or may upload.
//!
//! Each kind of policy is one file. The crate does not depend on HTTP, a database or Imgwire. What a policy needs from
//! outside is a port, a trait that the service implements: [`Credentials`], [`QuotaStore`], [`Clock`] and others.
//!
//! The design follows three rules:
//!
//! 1. A policy allows, denies, or allows and holds a reservation: [`Verdict`].
//! 2. A fault is not a denial. A policy that cannot decide returns the `Err` of [`Policy::decide`], never a [`Denial`].
//! 3. A reservation is settled exactly once, when it is known whether a token was issued: [`Permit`].
//!
//! # How to add a kind of policy
//!
//! 1. Write a file with the settings of the kind and its policy. The settings implement [`PolicyKind`], the policy
//!    implements [`Policy`].
//! 2. Add its line to [`add_built_in_kinds`].
//!
//! The config loader, `check`, `explain`, the JSON Schema, readiness and reloads take what they need from the trait. A
//! program of your own can register its own kinds in the same way (`docs/own-policies.md`). This is a complete kind:
//!
//! ```
//! use std::sync::Arc;
//!
//! use policies::{
//!     BoxFuture, BuildContext, BuildError, Decision, Denial, PolicyInput, Findings, Policy, PolicyKind, Verdict,
//! };
//! use schemars::JsonSchema;
//! use serde::Deserialize;
//!
//! /// The request names one of these workspaces.
//! #[derive(Clone, Debug, Deserialize, JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct NamedWorkspaceSettings {
//!     /// The ids of the workspaces.
//!     workspaces: Vec<String>,
//! }
//!
//! impl PolicyKind for NamedWorkspaceSettings {
//!     const NAME: &'static str = "named_workspace";
//!     // Nothing that it depends on can be down, so there is no `on_failure`.
//!     const CAN_FAIL: bool = false;
//!
//!     fn describe(&self) -> String {
//!         format!("the request names {}", self.workspaces.join(" or "))
//!     }
//!
//!     fn check(&self, findings: &mut Findings) {
//!         if self.workspaces.is_empty() {
//!             findings.fault("workspaces", "must name at least one workspace");
//!         }
//!     }
//!
//!     fn build(&self, _: BuildContext<'_>) -> Result<Arc<dyn Policy>, BuildError> {
//!         Ok(Arc::new(NamedWorkspace(self.workspaces.clone())))
//!     }
//! }
//!
//! struct NamedWorkspace(Vec<String>);
//!
//! impl Policy for NamedWorkspace {
//!     fn decide<'a>(&'a self, input: PolicyInput<'a>) -> BoxFuture<'a, Decision> {
//!         Box::pin(async move {
//!             let named = input.request.workspace.as_ref();
//!             let is_listed = named.is_some_and(|named| self.0.iter().any(|id| id == named.as_str()));
//!             Ok(Decision::from(if is_listed {
//!                 Verdict::Allow
//!             } else {
//!                 Verdict::Deny(Denial::WorkspaceRequired("it must name one".to_owned()))
//!             }))
//!         })
//!     }
//! }
//!
//! // Settings as the config loader passes them to the kind.
//! let settings: NamedWorkspaceSettings = serde_json::from_str(r#"{ "workspaces": [] }"#).unwrap();
//! let mut findings = Findings::default();
//! PolicyKind::check(&settings, &mut findings);
//! assert_eq!(findings.faults[0].0, "workspaces");
//! ```

#![deny(clippy::missing_errors_doc, missing_docs)]

mod engine;
mod expression;
mod imgwire_limits;
mod quota;
mod rate_limit;
mod remote;
mod signed_in;
mod storage;
mod upload_intent;
mod workspace_member;

pub use engine::*;
pub use expression::ExpressionSettings;
pub use imgwire_limits::{ImgwireLimits, MAX_FILE_BYTES};
pub use quota::QuotaSettings;
pub use rate_limit::{LimitOnFailure, RateLimit, RateLimitSettings};
pub use remote::RemoteSettings;
pub use signed_in::SignedInSettings;
pub use storage::StorageSettings;
pub use upload_intent::{FixedPurpose, MimeType, UploadIntentSettings};
pub use workspace_member::{Members, WorkspaceMemberSettings};

/// Registers the built-in kinds, one per line.
pub fn add_built_in_kinds(registry: &mut impl PolicyRegistry) {
    registry.add::<SignedInSettings>();
    registry.add::<WorkspaceMemberSettings>();
    registry.add::<RateLimitSettings>();
    registry.add::<QuotaSettings>();
    registry.add::<StorageSettings>();
    registry.add::<UploadIntentSettings>();
    registry.add::<ExpressionSettings>();
    registry.add::<RemoteSettings>();
}
