//! The port of records: what requests wait for.

use std::sync::{Arc, OnceLock};

use futures_util::future::{LocalBoxFuture, ready};
use jiff::Timestamp;
use policies::{BoxFuture, Counter, Fault, ImageId, StorageStore, StorageUsed, TokenId};
use uuid::Uuid;

use super::{
    super::quotas::Counters,
    changes, erasures, following,
    outbox::{self, EventRow},
    queries::{self, View},
    reconciliations, storage,
    tables::keep_secret,
    writer::RecordWriter,
};
use crate::stores::{
    events::{Backlog, EventStore, NewEvent, StoredEvent},
    fault::StoreFault,
    reconciliations::{Reconciled, Reconciliation, ReconciliationStore},
    records::{
        Begun, Completed, Earlier, Ending, Erasure, FileFacts, Holder, ImagePage, Intent, Origin,
        Page, Progress, ReadRate, Record, RecordId, RecordQuery, RecordStore, UploadState,
        new_secret,
    },
};

impl Counters {
    /// Resolves when the change is on disk.
    async fn change<T: Send + Sync + 'static>(
        &self,
        change: impl FnOnce(&mut RecordWriter<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let shared = self.shared();
        shared.require_up()?;
        let result = Arc::new(OnceLock::new());
        let filled = result.clone();
        let commit = shared.change_records(Box::new(move |open| {
            // Only this sets it.
            let _ = filled.set(change(open)?);
            Ok(())
        }));
        shared.wait(&commit).await?;
        // The writer has dropped its part.
        let result = Arc::into_inner(result).and_then(OnceLock::into_inner);
        result.ok_or_else(|| shared.health.fault(StoreFault::Down))
    }

    async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&View<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let shared = self.shared();
        shared.require_up()?;
        let answer = self.reader().read(query).await;
        answer.map_err(|fault| shared.health.fault(fault))
    }
}

impl StorageStore for Counters {
    fn storage_used(&self, counter: Counter) -> BoxFuture<'_, StorageUsed> {
        Box::pin(self.query(move |view| storage::used(view.connection, &counter)))
    }
}

type Future<'a, T> = LocalBoxFuture<'a, Result<T, Fault>>;

impl EventStore for Counters {
    fn take_events(
        &self,
        now: Timestamp,
        next: Timestamp,
        limit: u32,
    ) -> Future<'_, Vec<StoredEvent>> {
        let deliveries = self.deliveries().clone();
        Box::pin(self.query(move |view| deliveries.take(view, now, next, limit)))
    }

    fn finish_events(
        &self,
        delivered: Vec<Uuid>,
        failed: Vec<(Uuid, Timestamp)>,
    ) -> Future<'_, ()> {
        Box::pin(self.change(move |open| outbox::finish(open.connection, &delivered, &failed)))
    }

    fn drop_events(&self, before: Timestamp, limit: u32) -> Future<'_, u64> {
        Box::pin(self.change(move |open| outbox::drop_old(open.connection, before, limit)))
    }

    fn backlog(&self) -> Future<'_, Backlog> {
        Box::pin(self.query(|view| outbox::backlog(view.connection)))
    }
}

impl ReconciliationStore for Counters {
    fn start_reconciliation(&self, id: Uuid) -> Future<'_, Uuid> {
        Box::pin(self.change(move |open| reconciliations::start(open.connection, id)))
    }

    fn reconciled(&self, id: Uuid) -> Future<'_, Option<Reconciled>> {
        Box::pin(self.query(move |view| reconciliations::find(view.connection, id)))
    }

    fn take_reconciliation(
        &self,
        now: Timestamp,
        until: Timestamp,
    ) -> Future<'_, Option<Reconciliation>> {
        Box::pin(self.change(move |open| reconciliations::take(open.connection, now, until)))
    }

    fn save_reconciliation(&self, saved: Reconciliation, until: Timestamp) -> Future<'_, ()> {
        let now = self.shared().clock().now();
        Box::pin(
            self.change(move |open| reconciliations::save(open.connection, &saved, until, now)),
        )
    }
}

impl RecordStore for Counters {
    fn secret(&self) -> Future<'_, [u8; 32]> {
        Box::pin(async move {
            if let Some(secret) = self.known_secret().get() {
                return Ok(*secret);
            }
            let new = new_secret().map_err(|fault| self.shared().health.fault(fault))?;
            let secret = self.change(move |open| keep_secret(open.connection, new));
            let secret = secret.await?;
            Ok(*self.known_secret().get_or_init(|| secret))
        })
    }

    fn begin(&self, intent: Arc<Intent>) -> Future<'_, Begun> {
        Box::pin(self.change(move |open| changes::begin(open, &intent)))
    }

    fn complete(
        &self,
        intent: Arc<Intent>,
        image: ImageId,
        follow_at: Timestamp,
    ) -> Future<'_, Completed> {
        Box::pin(self.change(move |open| changes::complete(open, &intent, &image, follow_at)))
    }

    fn withdraw(&self, id: RecordId) -> Future<'_, ()> {
        Box::pin(self.change(move |open| changes::withdraw(open, id)))
    }

    fn replayed(&self, slot: [u8; 32]) -> Future<'_, Option<Earlier>> {
        Box::pin(self.query(move |view| queries::replayed(view, &slot)))
    }

    fn take_due(&self, now: Timestamp, next: Timestamp, limit: u32) -> Future<'_, Vec<Intent>> {
        Box::pin(self.change(move |open| changes::take_due(open, now, next, limit)))
    }

    fn issued(&self, id: RecordId, origin: Origin, token: TokenId) -> Future<'_, ()> {
        Box::pin(self.change(move |open| changes::issued(open, id, &origin, &token)))
    }

    fn link(&self, id: RecordId, image: ImageId) -> Future<'_, ()> {
        Box::pin(self.change(move |open| changes::link(open, id, &image)))
    }

    fn settle(
        &self,
        id: RecordId,
        state: UploadState,
        real: FileFacts,
        events: Vec<NewEvent>,
    ) -> Future<'_, bool> {
        let events = EventRow::new(events);
        Box::pin(self.change(move |open| following::settle(open, id, state, &real, &events)))
    }

    fn delete(
        &self,
        id: RecordId,
        ending: Ending,
        at: Timestamp,
        events: Vec<NewEvent>,
    ) -> Future<'_, bool> {
        let events = EventRow::new(events);
        Box::pin(self.change(move |open| changes::delete(open, id, ending, at, &events)))
    }

    fn take_followed(
        &self,
        now: Timestamp,
        next: Timestamp,
        limit: u32,
        rate: ReadRate,
    ) -> Future<'_, Vec<Record>> {
        let following = self.following().clone();
        Box::pin(self.query(move |view| following.take(view, now, next, limit, rate)))
    }

    fn follow(&self, id: RecordId, at: Timestamp) -> Future<'_, ()> {
        Box::pin(self.change(move |open| following::follow(open, id, at)))
    }

    fn follow_later(&self, next: Vec<(RecordId, Timestamp)>) -> Future<'_, ()> {
        Box::pin(self.change(move |open| following::follow_later(open, &next)))
    }

    fn take_reads(&self, now: Timestamp, wanted: u32, rate: ReadRate) -> Future<'_, u32> {
        let taken = self.following().take_reads(now, wanted, rate);
        Box::pin(ready(Ok(taken)))
    }

    fn recount(&self, id: RecordId, counters: Vec<Counter>) -> Future<'_, bool> {
        Box::pin(self.change(move |open| storage::recount(open, id, &counters)))
    }

    fn image(&self, image: &ImageId) -> Future<'_, Option<Record>> {
        let image = image.clone();
        Box::pin(self.query(move |view| queries::by_image(view, &image)))
    }

    fn images(&self, holder: Holder, page: Page) -> Future<'_, ImagePage> {
        Box::pin(self.query(move |view| queries::images(view, &holder, page)))
    }

    fn find(&self, query: RecordQuery, page: Page) -> Future<'_, Vec<Record>> {
        Box::pin(self.query(move |view| queries::find(view, &query, page)))
    }

    fn export(&self, after: Option<RecordId>, limit: u32) -> Future<'_, Vec<Record>> {
        Box::pin(self.query(move |view| queries::export(view, after, limit)))
    }

    fn remove(&self, id: RecordId) -> Future<'_, ()> {
        Box::pin(self.change(move |open| changes::remove(open, id)))
    }

    fn remove_old(&self, before: Timestamp, limit: u32) -> Future<'_, u64> {
        Box::pin(self.change(move |open| changes::remove_old(open, before, limit)))
    }

    fn start_erasure(&self, erasure: Erasure) -> Future<'_, ()> {
        Box::pin(self.change(move |open| erasures::start(open.connection, &erasure)))
    }

    fn erasure(&self, id: Uuid) -> Future<'_, Option<Progress>> {
        Box::pin(self.query(move |view| erasures::progress(view.connection, id)))
    }

    fn take_erasure(&self, now: Timestamp, until: Timestamp) -> Future<'_, Option<Erasure>> {
        Box::pin(self.change(move |open| erasures::take(open.connection, now, until)))
    }

    fn hold_erasure(&self, id: Uuid, until: Timestamp) -> Future<'_, ()> {
        Box::pin(self.change(move |open| erasures::hold(open.connection, id, until)))
    }

    fn update_erasure(&self, id: Uuid, progress: Progress) -> Future<'_, ()> {
        let now = self.shared().clock().now();
        Box::pin(self.change(move |open| erasures::update(open.connection, id, progress, now)))
    }
}
