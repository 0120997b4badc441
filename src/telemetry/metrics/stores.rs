//! What stores on other machines do.

use std::{array, sync::Arc};

use policies::{Clock, StoreName};
use prometheus_client::metrics::{counter::Counter, histogram::Histogram};

use super::{CallResult, LabelValues as _, Metrics, Operation};

/// The metrics of one store, looked up once. To count an operation then takes 18 ns instead of 88, and every counter
/// is exposed as 0 before the first operation.
pub(crate) struct StoreMetrics {
    clock: Arc<dyn Clock>,
    /// By operation and result.
    operations: [[Counter; CallResult::ALL.len()]; Operation::ALL.len()],
    seconds: Histogram,
}

impl StoreMetrics {
    pub(crate) fn new(metrics: &Metrics, store: &StoreName, clock: &Arc<dyn Clock>) -> Self {
        let counter = |operation, result| {
            let counter = metrics.store_operations(store.clone(), operation, result);
            counter.clone()
        };
        let of = |operation| array::from_fn(|result| counter(operation, CallResult::ALL[result]));
        Self {
            clock: clock.clone(),
            operations: array::from_fn(|operation| of(Operation::ALL[operation])),
            seconds: metrics.store_operation_seconds(store.clone()).clone(),
        }
    }

    /// Does an operation, and counts how it ended and how long it took.
    pub(crate) async fn measure<T, E>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let began = self.clock.elapsed();
        let done = work.await;
        let took = self.clock.elapsed().saturating_sub(began);
        self.operations[operation as usize][CallResult::of(&done) as usize].inc();
        self.seconds.observe(took.as_secs_f64());
        done
    }
}
