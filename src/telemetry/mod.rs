//! The log, with one line per request, the metrics and the traces.

mod line_filter;
mod line_limit;
mod log;
mod metrics;
mod point;
mod request_id;
mod request_line;
mod trace_state;
mod traces;

pub(crate) use self::{
    line_filter::DECISION,
    metrics::{CallResult, HttpClientMetrics, Operation, PoolEvent, StoreMetrics},
    request_line::{HasDecision, LogFields, RequestLine, known_method},
    traces::outgoing_headers,
};
pub use self::{
    log::{LogFormat, TelemetryGuard, log_filter, set_log_filter, start_log, start_log_and_traces},
    metrics::Metrics,
    point::{Point, PointState},
    request_id::{RequestId, X_REQUEST_ID},
    trace_state::trace_state,
    traces::{RootSpan, trace_id},
};
