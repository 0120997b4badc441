//! The parts of every kind of policy: the trait and its context, the chain, decisions and reservations, the facts of a
//! request, counters, windows and the clock.

pub(crate) mod cel_environment;
pub(crate) mod chain;
pub(crate) mod claim_path;
pub(crate) mod claimed_memberships;
pub(crate) mod clock;
pub(crate) mod counter;
pub(crate) mod decider;
pub(crate) mod denial;
pub(crate) mod endpoint;
pub(crate) mod expression;
pub(crate) mod expression_check;
pub(crate) mod expression_walk;
pub(crate) mod fact_list;
pub(crate) mod fact_ref;
pub(crate) mod fact_values;
pub(crate) mod facts;
pub(crate) mod fault;
pub(crate) mod hold;
pub(crate) mod ids;
pub(crate) mod keyed_limit;
pub(crate) mod kind;
pub(crate) mod long_list;
pub(crate) mod memberships;
pub(crate) mod mode;
pub(crate) mod permit;
pub(crate) mod policy;
pub(crate) mod ports;
pub(crate) mod quota_store;
pub(crate) mod rate_limit_memory;
pub(crate) mod rate_limit_state;
pub(crate) mod rate_limit_store;
pub(crate) mod reads;
pub(crate) mod request;
pub(crate) mod secret_source;
pub(crate) mod sql_columns;
pub(crate) mod units;
pub(crate) mod window;

pub use chain::{Chain, CounterStore, Evaluation, Link, Outcome, Step, StepResult, Trace};
pub use claim_path::{ClaimPath, Claims};
pub use clock::{Clock, SystemClock};
pub use counter::{Dimension, Per, network};
pub use decider::{Decider, Protocol, Question};
pub use denial::{Denial, DenialClass};
pub use endpoint::Endpoint;
pub use expression::{Condition, EvaluationError, Expression};
pub use facts::{Fact, Facts, Membership, NewFact};
pub use fault::{BoxFuture, Fault};
pub use hold::Hold;
pub use ids::{
    IdentityName, InvalidId, MAX_ID_BYTES, PolicyName, Purpose, RoutePath, StoreName, SubjectId,
    WorkspaceId,
};
pub use keyed_limit::{KeyedLimit, KeyedLimitSettings};
pub use kind::{
    BuildContext, ConfiguredPolicy, Findings, PolicyKind, PolicyRegistry, Requirements,
    ServiceCall, StoreUse,
};
pub use memberships::{Member, MemberAnswer, MembershipSource, Memberships};
pub use mode::{Mode, OnFailure};
pub use permit::{Permit, Reason, Tolerated};
pub use policy::{Decision, LimitState, Pass, PersistentCounters, Policy, PolicyInput, Verdict};
pub use ports::{BuildError, CallSettings, Ports};
pub use quota_store::{Counter, QuotaStore, Reservation};
pub use rate_limit_store::{AttemptResult, Rate, RateLimitStore};
pub use reads::Reads;
pub use request::{
    AcceptedIdentities, Credentials, DeclaredFile, Presented, Subject, UploadRequest,
};
pub use secret_source::SecretSource;
pub use units::{ByteCount, Interval};
pub use window::{Window, WindowUnit, Windows};
