//! The records of a file that another process may have open. They are read, and changes are refused.

use std::sync::Arc;

use futures_util::future::{LocalBoxFuture, ready};
use jiff::Timestamp;
use policies::{BoxFuture, Counter, Fault, ImageId, StorageStore, StorageUsed, TokenId};
use uuid::Uuid;

use super::{
    super::read_only::ReadOnly,
    erasures,
    queries::{self, View},
    tables::find_secret,
};
use crate::stores::NewEvent;
use crate::stores::records::{
    Begun, Earlier, Ending, Erasure, FileFacts, Holder, ImagePage, Intent, Origin, Page, Progress,
    Record, RecordId, RecordQuery, RecordStore, UploadState,
};

impl StorageStore for ReadOnly {
    fn storage_used(&self, _: Counter) -> BoxFuture<'_, StorageUsed> {
        self.refuse()
    }
}

impl crate::stores::EventStore for ReadOnly {}

impl crate::stores::ReconciliationStore for ReadOnly {}

type Future<'a, T> = LocalBoxFuture<'a, Result<T, Fault>>;

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

    fn complete(&self, _: Arc<Intent>, _: ImageId, _: Timestamp) -> Future<'_, bool> {
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
