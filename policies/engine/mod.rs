//! The parts of every kind of policy: the trait and its context, the chain, decisions and reservations, the facts of a
//! request, counters, windows and the clock.

pub(crate) mod chain;
pub(crate) mod claim_path;
pub(crate) mod claimed_memberships;
pub(crate) mod clock;
pub(crate) mod common;
pub(crate) mod counter;
pub(crate) mod denial;
pub(crate) mod expression_check;
pub(crate) mod expression_walk;
pub(crate) mod fact_values;
pub(crate) mod facts;
pub(crate) mod hold;
pub(crate) mod keyed_limit;
pub(crate) mod kind;
pub(crate) mod long_list;
pub(crate) mod policy;
pub(crate) mod rate_limit_memory;
pub(crate) mod rate_limit_state;
pub(crate) mod reads;
pub(crate) mod request;
pub(crate) mod secret_source;
pub(crate) mod units;
pub(crate) mod urls;
pub(crate) mod window;
pub(crate) mod workspace_member_check;

pub use chain::{
    Chain, CounterStore, Evaluation, Link, Outcome, Reason, Step, StepResult, Tolerated, Trace,
};
pub use claim_path::ClaimPath;
pub use clock::{Clock, SystemClock};
pub use common::{Common, Messages, Mode, OnFailure};
pub use counter::{Dimension, Per, network};
pub use denial::{Denial, DenialClass};
pub use hold::{Hold, Permit};
pub use keyed_limit::{KeyedLimit, KeyedLimitSettings};
pub use kind::{
    BuildContext, BuildError, ConfiguredPolicy, Fact, Findings, PolicyKind, PolicyRegistry, Ports,
    Requirements, ServiceCall, StoreUse,
};
pub use policy::{
    BoxFuture, Decision, Facts, Fault, LimitState, Membership, NewFact, Pass, PersistentCounters,
    Policy, PolicyInput, Verdict,
};
pub use reads::Reads;
pub use request::{
    AcceptedIdentities, Claims, Credentials, DeclaredFile, IdentityName, InvalidId, MAX_ID_BYTES,
    PolicyName, Presented, Purpose, RoutePath, StoreName, Subject, SubjectId, UploadRequest,
    WorkspaceId,
};
pub use secret_source::SecretSource;
pub use units::{ByteCount, Interval};
pub use urls::{PathSegment, ServiceUrl, UrlTemplate, is_loopback};
pub use window::{Window, WindowUnit, Windows};
