//! Reconciliations: jobs that compare every record with Imgwire.

use futures_util::future::LocalBoxFuture;
use jiff::Timestamp;
use policies::Fault;
use serde::Serialize;
use uuid::Uuid;

use super::record_id::RecordId;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    pub done: bool,
    /// How many records were compared.
    pub checked: u64,
    /// How many images were found to be deleted at Imgwire.
    pub deleted: u64,
    /// How many records were corrected otherwise.
    pub corrected: u64,
    /// How many images could not be read.
    pub failed: u64,
}

/// A reconciliation that is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconciliation {
    pub id: Uuid,
    /// The last record that was compared.
    pub after: Option<RecordId>,
    pub progress: Reconciled,
}

type Future<'a, T> = LocalBoxFuture<'a, Result<T, Fault>>;

pub trait ReconciliationStore {
    /// Starts a reconciliation, unless one is not done. Returns the id of the one that runs.
    fn start_reconciliation(&self, id: Uuid) -> Future<'_, Uuid>;

    fn reconciled(&self, id: Uuid) -> Future<'_, Option<Reconciled>>;

    /// Takes the reconciliation that is not done and not taken, until `until`. Of several gates, one works on it.
    fn take_reconciliation(
        &self,
        now: Timestamp,
        until: Timestamp,
    ) -> Future<'_, Option<Reconciliation>>;

    /// Saves how far it is, and keeps it taken until `until`.
    fn save_reconciliation(
        &self,
        reconciliation: Reconciliation,
        until: Timestamp,
    ) -> Future<'_, ()>;
}
