//! The log, with one line per request, the metrics and the traces.

mod export;
mod log;
mod log_text;
mod losses;
mod metrics;
mod point;
mod recent;
mod request_line;
mod traces;

pub(crate) use self::{
    log::DECISION,
    metrics::{CallResult, DeliveryOutcome, HttpClientMetrics, Operation, PoolEvent, StoreMetrics},
    recent::{keep_lines, lines_with},
    request_line::{
        HasDecision, LogFields, REFUSED, RequestLine, known_method, seconds_to_wait, whole_seconds,
    },
    traces::outgoing_headers,
};
pub use self::{
    log::{LogFormat, TelemetryGuard, log_filter, set_log_filter, start_log, start_log_and_traces},
    metrics::Metrics,
    point::{Point, PointState},
    request_line::{RequestId, X_REQUEST_ID},
    traces::{RootSpan, trace_id, trace_state},
};
