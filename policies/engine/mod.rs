//! The parts of every kind of policy: the trait and its context, the chain, decisions and reservations, the facts of a
//! request, counters, windows and the clock.

pub(crate) mod cel_environment;
pub(crate) mod chain;
pub(crate) mod claims;
pub(crate) mod config_values;
pub(crate) mod counter;
pub(crate) mod denial;
pub(crate) mod excerpt;
pub(crate) mod expression;
pub(crate) mod expression_check;
pub(crate) mod expression_syntax;
pub(crate) mod fact_list;
pub(crate) mod fact_ref;
pub(crate) mod fact_values;
pub(crate) mod fault;
pub(crate) mod ids;
pub(crate) mod keyed_limit;
pub(crate) mod kind;
pub(crate) mod limit_setting;
pub(crate) mod long_list;
pub(crate) mod policy;
pub(crate) mod ports;
pub(crate) mod quota_store;
pub(crate) mod rate_limit_memory;
pub(crate) mod rate_limit_store;
pub(crate) mod reached_limit;
pub(crate) mod reads;
pub(crate) mod request;
pub(crate) mod similar;
pub(crate) mod sql_columns;
pub(crate) mod step;
pub(crate) mod storage_full;
pub(crate) mod storage_store;
pub(crate) mod time;

pub use chain::{Chain, CounterStore, Evaluation, Link, Outcome, Trace};
pub use claims::{ClaimPath, Claims};
pub use config_values::{ByteAmount, ByteCount, Endpoint, Interval, SecretSource};
pub use counter::{Counter, Dimension, Per, PerHolder, network};
pub use denial::{Denial, DenialClass, TokenOrigin};
pub use excerpt::excerpt;
pub use expression::{Condition, EvaluationError, Expression, FactExpression, Scalar};
pub use fault::{BoxFuture, Fault};
pub use ids::{
    IdentityName, ImageId, InvalidId, MAX_ID_BYTES, PolicyName, Purpose, RoutePath, StoreName,
    SubjectId, TokenId, WorkspaceId, id_text,
};
pub use keyed_limit::{KeyedLimit, KeyedLimitSettings};
pub use kind::{
    BuildContext, ConfiguredPolicy, Findings, PolicyKind, PolicyRegistry, Requirements, Roles,
    ServiceCall, StoreUse,
};
pub use limit_setting::{LimitByClaim, LimitSetting, LimitValue};
pub use policy::{
    Decision, Hold, LimitState, Mode, OnFailure, Pass, Permit, PersistentCounters, Policy,
    PolicyInput, Reason, StorageCounters, Tolerated, Verdict,
};
pub use ports::{
    BuildError, CallSettings, Decider, Member, MemberAnswer, MembershipSource, Memberships, Ports,
    Protocol, Question,
};
pub use quota_store::{QuotaStore, Reservation};
pub use rate_limit_store::{AttemptResult, Rate, RateLimitStore};
pub use reached_limit::ReachedLimit;
pub use reads::Reads;
pub use request::{
    AcceptedIdentities, Credentials, DeclaredFile, Fact, Facts, Membership, NewFact, Presented,
    Subject, UploadRequest,
};
pub use similar::similar;
pub use step::{Step, StepResult};
pub use storage_full::{StorageFull, StorageUnit};
pub use storage_store::{StorageCharge, StorageLimits, StorageState, StorageStore, StorageUsed};
pub use time::{Clock, SystemClock, Window, WindowUnit, Windows};
