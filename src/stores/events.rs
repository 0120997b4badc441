//! Events about uploads that wait for their delivery to the app. A change of a record and its events are one change, so
//! that none is lost, and none tells of what did not happen.

use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use jiff::Timestamp;
use policies::Fault;
use uuid::Uuid;

/// What happened to an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString)]
pub enum EventKind {
    #[strum(serialize = "upload.ready")]
    UploadReady,
    #[strum(serialize = "upload.quarantined")]
    UploadQuarantined,
    #[strum(serialize = "upload.mismatched")]
    UploadMismatched,
    #[strum(serialize = "upload.abandoned")]
    UploadAbandoned,
    #[strum(serialize = "image.deleted")]
    ImageDeleted,
}

/// An event of a change.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub kind: EventKind,
    pub at: Timestamp,
    /// The record after the change, as JSON.
    pub data: Arc<str>,
}

/// An event that waits.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// It stays the same in all deliveries, so that the app can ignore repeated ones.
    pub id: Uuid,
    pub kind: EventKind,
    /// Counts the events of one record, from 1.
    pub sequence: u64,
    pub at: Timestamp,
    pub data: Arc<str>,
    /// How many deliveries failed.
    pub failures: u32,
}

/// How many events wait, and since when the oldest one does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub events: u64,
    pub oldest: Option<Timestamp>,
}

type Future<'a, T> = LocalBoxFuture<'a, Result<T, Fault>>;

pub trait EventStore {
    /// Takes at most `limit` events that are due at `now`, the oldest first, and lets them be due again at `next`. Of several
    /// gates, each takes others.
    fn take_events(
        &self,
        now: Timestamp,
        next: Timestamp,
        limit: u32,
    ) -> Future<'_, Vec<StoredEvent>>;

    /// Removes events that were delivered, and lets those whose delivery failed be due at another time.
    fn finish_events(&self, delivered: Vec<Uuid>, failed: Vec<(Uuid, Timestamp)>)
    -> Future<'_, ()>;

    /// Removes up to `limit` events that are older than `before`. Returns how many.
    fn drop_events(&self, before: Timestamp, limit: u32) -> Future<'_, u64>;

    fn backlog(&self) -> Future<'_, Backlog>;
}
