//! The records of a file that another process may have open. They are read, and changes are refused.

use std::sync::Arc;

use futures_util::future::{LocalBoxFuture, ready};
use jiff::Timestamp;
use policies::{BoxFuture, Counter, Fault, ImageId, StorageStore, StorageUsed, TokenId};
use rusqlite::Connection;
use uuid::Uuid;

use super::{
    super::read_only::ReadOnly,
    erasures,
    outbox::{self, EVENTS},
    queries::{self, View},
    reconciliations::{self, RECONCILIATIONS},
    storage::{self, STORAGE},
    tables::find_secret,
};
use crate::stores::{
    events::{Backlog, EventStore, NewEvent, StoredEvent},
    reconciliations::{Reconciled, Reconciliation, ReconciliationStore},
    records::{
        Begun, Completed, Earlier, Ending, Erasure, FileFacts, Holder, ImagePage, Intent, Origin,
        Page, Progress, ReadRate, Record, RecordId, RecordQuery, RecordStore, UploadState,
    },
};

impl StorageStore for ReadOnly {
    fn storage_used(&self, counter: Counter) -> BoxFuture<'_, StorageUsed> {
        let used = self.read_file(STORAGE, |connection| storage::used(connection, &counter));
        Box::pin(ready(used.map(Option::unwrap_or_default)))
    }
}

type Future<'a, T> = LocalBoxFuture<'a, Result<T, Fault>>;

impl EventStore for ReadOnly {
    fn take_events(&self, _: Timestamp, _: Timestamp, _: u32) -> Future<'_, Vec<StoredEvent>> {
        self.refuse()
    }

    fn finish_events(&self, _: Vec<Uuid>, _: Vec<(Uuid, Timestamp)>) -> Future<'_, ()> {
        self.refuse()
    }

    fn drop_events(&self, _: Timestamp, _: u32) -> Future<'_, u64> {
        self.refuse()
    }

    fn backlog(&self) -> Future<'_, Backlog> {
        let backlog = self.read_file(EVENTS, outbox::backlog);
        Box::pin(ready(backlog.map(Option::unwrap_or_default)))
    }
}

impl ReconciliationStore for ReadOnly {
    fn start_reconciliation(&self, _: Uuid) -> Future<'_, Uuid> {
        self.refuse()
    }

    fn reconciled(&self, id: Uuid) -> Future<'_, Option<Reconciled>> {
        let find = |connection: &Connection| reconciliations::find(connection, id);
        let found = self.read_file(RECONCILIATIONS, find);
        Box::pin(ready(found.map(Option::flatten)))
    }

    fn take_reconciliation(
        &self,
        _: Timestamp,
        _: Timestamp,
    ) -> Future<'_, Option<Reconciliation>> {
        self.refuse()
    }

    fn save_reconciliation(&self, _: Reconciliation, _: Timestamp) -> Future<'_, ()> {
        self.refuse()
    }
}

impl ReadOnly {
    /// `T::default()` if there is no file yet, or one without records.
    fn query<'a, T: Default + 'a>(
        &self,
        query: impl FnOnce(&View<'_>) -> rusqlite::Result<T>,
    ) -> Future<'a, T> {
        let answer = self.read_file("upload_keys", |connection| {
            let new_keys = None;
            query(&View {
                connection,
                new_keys,
            })
        });
        Box::pin(ready(answer.map(Option::unwrap_or_default)))
    }
}

impl RecordStore for ReadOnly {
    fn secret(&self) -> Future<'_, [u8; 32]> {
        let secret = self.read_file("upload_secret", find_secret);
        match secret.transpose() {
            Some(secret) => Box::pin(ready(secret)),
            None => self.refuse(),
        }
    }

    fn begin(&self, _: Arc<Intent>) -> Future<'_, Begun> {
        self.refuse()
    }

    fn complete(&self, _: Arc<Intent>, _: ImageId, _: Timestamp) -> Future<'_, Completed> {
        self.refuse()
    }

    fn withdraw(&self, _: RecordId) -> Future<'_, ()> {
        self.refuse()
    }

    fn replayed(&self, slot: [u8; 32]) -> Future<'_, Option<Earlier>> {
        self.query(|view| queries::replayed(view, &slot))
    }

    fn take_due(&self, _: Timestamp, _: Timestamp, _: u32) -> Future<'_, Vec<Intent>> {
        self.refuse()
    }

    fn issued(&self, _: RecordId, _: Origin, _: TokenId) -> Future<'_, ()> {
        self.refuse()
    }

    fn link(&self, _: RecordId, _: ImageId) -> Future<'_, ()> {
        self.refuse()
    }

    fn settle(
        &self,
        _: RecordId,
        _: UploadState,
        _: FileFacts,
        _: Vec<NewEvent>,
    ) -> Future<'_, bool> {
        self.refuse()
    }

    fn delete(&self, _: RecordId, _: Ending, _: Timestamp, _: Vec<NewEvent>) -> Future<'_, bool> {
        self.refuse()
    }

    fn take_followed(
        &self,
        _: Timestamp,
        _: Timestamp,
        _: u32,
        _: ReadRate,
    ) -> Future<'_, Vec<Record>> {
        self.refuse()
    }

    fn follow(&self, _: RecordId, _: Timestamp) -> Future<'_, ()> {
        self.refuse()
    }

    fn follow_later(&self, _: Vec<(RecordId, Timestamp)>) -> Future<'_, ()> {
        self.refuse()
    }

    fn take_reads(&self, _: Timestamp, _: u32, _: ReadRate) -> Future<'_, u32> {
        self.refuse()
    }

    fn recount(&self, _: RecordId, _: Vec<Counter>) -> Future<'_, bool> {
        self.refuse()
    }

    fn image(&self, image: &ImageId) -> Future<'_, Option<Record>> {
        self.query(|view| queries::by_image(view, image))
    }

    fn images(&self, holder: Holder, page: Page) -> Future<'_, ImagePage> {
        self.query(|view| queries::images(view, &holder, page))
    }

    fn find(&self, query: RecordQuery, page: Page) -> Future<'_, Vec<Record>> {
        self.query(|view| queries::find(view, &query, page))
    }

    fn export(&self, after: Option<RecordId>, limit: u32) -> Future<'_, Vec<Record>> {
        self.query(|view| queries::export(view, after, limit))
    }

    fn remove(&self, _: RecordId) -> Future<'_, ()> {
        self.refuse()
    }

    fn remove_old(&self, _: Timestamp, _: u32) -> Future<'_, u64> {
        self.refuse()
    }

    fn start_erasure(&self, _: Erasure) -> Future<'_, ()> {
        self.refuse()
    }

    fn erasure(&self, id: Uuid) -> Future<'_, Option<Progress>> {
        self.query(|view| erasures::progress(view.connection, id))
    }

    fn take_erasure(&self, _: Timestamp, _: Timestamp) -> Future<'_, Option<Erasure>> {
        self.refuse()
    }

    fn hold_erasure(&self, _: Uuid, _: Timestamp) -> Future<'_, ()> {
        self.refuse()
    }

    fn update_erasure(&self, _: Uuid, _: Progress) -> Future<'_, ()> {
        self.refuse()
    }
}
