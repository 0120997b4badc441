//! The metrics of remote stores.

use std::sync::Arc;

use policies::{Clock, StoreName};

use super::{Metrics, Operation};

/// Measures the operations of one store.
pub(crate) struct StoreMetrics {
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    store: StoreName,
    /// `db.system.name` of OpenTelemetry.
    system: &'static str,
}

impl StoreMetrics {
    pub(crate) fn new(
        metrics: &Arc<Metrics>,
        store: &StoreName,
        system: &'static str,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        Self {
            clock: clock.clone(),
            metrics: metrics.clone(),
            store: store.clone(),
            system,
        }
    }

    /// Runs an operation, and records its result and duration.
    pub(crate) async fn measure<T, E>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let started = self.clock.elapsed();
        let result = work.await;
        let took = self.clock.elapsed().saturating_sub(started);
        let error_type = result.is_err().then_some("fault");
        let store = self.store.clone();
        self.metrics
            .db_client_operation_duration_seconds(self.system, operation, error_type, store)
            .observe(took.as_secs_f64());
        result
    }
}
