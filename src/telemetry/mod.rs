//! What the gate tells its operator: a line a decision, and metrics.

mod decision;
mod log;
mod metrics;
mod traces;

pub use self::{
    decision::record,
    log::{LogGuard, RootSpan, log_filter, set_log_filter, start_log},
    metrics::{Metrics, Operation, PoolEvent, StoreMetrics},
    traces::{RequestTrace, Traces},
};
