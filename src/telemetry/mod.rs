//! What the gate tells its operator: a line a decision, and metrics.

mod decision;
mod log;
mod metrics;

pub use self::{
    decision::record,
    log::{LogGuard, RootSpan, start_log},
    metrics::{Metrics, PoolEvent, StoreMetrics},
};
