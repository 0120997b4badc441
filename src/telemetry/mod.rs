//! What the gate tells its operator: one log line for each request, and metrics.

mod decision;
mod line_filter;
mod line_limit;
mod log;
mod metrics;
mod request_line;
mod trace_state;
mod traces;

pub use self::{
    decision::record,
    log::{LogGuard, RootSpan, log_filter, set_log_filter, start_log},
    metrics::Metrics,
    trace_state::trace_state,
    traces::{RequestTrace, Traces},
};
pub(crate) use self::{
    metrics::{CallResult, Operation, PoolEvent, StoreMetrics},
    request_line::{Account, HasDecision, RequestLine},
};
