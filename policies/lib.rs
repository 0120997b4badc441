//! The policies of imgwire-gate: who may have an upload token.
//!
//! Opening this folder is the catalogue: one policy, one file. Nothing here knows HTTP, a database or
//! Imgwire; what a policy needs from outside is a port ([`Credentials`], [`QuotaStore`], [`Clock`]) that
//! the service implements.
//!
//! Three rules carry the design:
//!
//! 1. A policy allows, denies, or allows while holding something: [`Verdict`].
//! 2. A fault is not a denial: "I cannot tell" is the `Err` of [`Policy::decide`], never a [`Denial`].
//! 3. What is held is settled, once, when it is known whether a token was issued: [`Permit`].
//!
//! # How to add a policy
//!
//! 1. Write its file: a settings struct (`Deserialize`, `JsonSchema`, `deny_unknown_fields`) and a type
//!    that implements [`Policy`].
//! 2. Give it a variant in [`settings::Kind`], which builds it from its settings.
//! 3. If it refuses for a reason of its own, add the reason to [`Denial`].
//!
//! A kind that only one app wants needs none of this: `docs/own-policies.md` registers it beside these.
//!
//! ```
//! use policies::{Decision, Deciding, Denial, Evaluating, Policy, Verdict};
//!
//! /// Lets in whoever names a workspace.
//! struct NamesWorkspace;
//!
//! impl Policy for NamesWorkspace {
//!     fn decide<'a>(&'a self, evaluating: Evaluating<'a>) -> Deciding<'a> {
//!         Box::pin(async move {
//!             Ok(Decision::from(match evaluating.request.workspace {
//!                 Some(_) => Verdict::Allow,
//!                 None => Verdict::Deny(Denial::WorkspaceRequired),
//!             }))
//!         })
//!     }
//! }
//! ```

mod chain;
mod claim_path;
mod claimed_memberships;
mod clock;
mod counter;
mod denial;
mod expression;
mod expression_check;
mod expression_walk;
mod fact_values;
mod facts;
mod hold;
mod keyed_limit;
mod limit;
mod long_list;
mod policy;
mod quota;
mod rate_limit;
mod rate_limit_memory;
mod rate_limit_state;
mod reads;
mod remote;
mod request;
mod secret_source;
pub mod settings;
mod signed_in;
mod units;
mod upload_intent;
mod urls;
mod window;
mod workspace_member;

pub use chain::{
    Chain, Counting, Evaluation, Link, Outcome, Overlooked, Reason, Said, Step, Trace,
};
pub use claim_path::ClaimPath;
pub use clock::{Clock, SystemClock};
pub use counter::{Dimension, Per, network};
pub use denial::{Class, Denial};
pub use expression::{
    Condition, EvaluationError, Expression, ExpressionPolicy, ExpressionSettings,
};
pub use hold::{Hold, Permit, Settling};
pub use keyed_limit::{KeyedLimit, KeyedLimitSettings};
pub use limit::LimitState;
pub use policy::{
    Counted, Deciding, Decision, Evaluating, Facts, Fault, Finding, Membership, Pass, Policy,
    Verdict,
};
pub use quota::{Counter, Quota, QuotaSettings, QuotaStore, Reservation, Reserving, Telling};
pub use rate_limit::{
    LimitOnFailure, Rate, RateLimit, RateLimitSettings, RateLimitStore, Taken, Taking,
};
pub use reads::Reads;
pub use remote::{Decider, Protocol, Question, Remote, RemoteSettings};
pub use request::{
    Claims, Credentials, DeclaredFile, IdentityName, InvalidId, MAX_ID_BYTES, PolicyName,
    Presented, Purpose, RoutePath, StoreName, Subject, SubjectId, UploadRequest, WorkspaceId,
};
pub use secret_source::SecretSource;
pub use signed_in::{SignedIn, SignedInSettings};
pub use units::{ByteCount, Interval};
pub use upload_intent::{FixedPurpose, UploadIntent, UploadIntentSettings};
pub use urls::{PathSegment, ServiceUrl, UrlTemplate, is_loopback};
pub use window::{Unit, Window, Windows};
pub use workspace_member::{
    Lookup, Member, MemberAnswer, Members, Memberships, WorkspaceMember, WorkspaceMemberSettings,
};
