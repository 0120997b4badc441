//! Records of uploads.
//!
//! - [`changes`]: the statements that change records.
//! - [`storage`]: what records hold of the storage.
//! - [`following`]: uploads that are followed.
//! - [`events`]: events of changes.
//! - [`queries`]: the statements that read them.
//! - [`erasures`]: erasures of a person's images, and the secret.
//! - [`reconciliations`]: comparisons with Imgwire.
//! - [`rows`]: how values are stored.

mod changes;
mod erasures;
mod events;
mod following;
mod queries;
mod reconciliations;
mod rows;
mod storage;

use std::sync::{Arc, OnceLock};

use futures_util::future::LocalBoxFuture;
use jiff::Timestamp;
use policies::{BoxFuture, Counter, Fault, ImageId, StorageStore, StorageUsed, TokenId};
use uuid::Uuid;

use self::rows::{Run, RunError};
use super::{batch::Batcher, connect::write_fault, quotas::Counters, statements::Statements};
use crate::{
    stores::{
        events::{Backlog, EventStore, NewEvent, StoredEvent},
        fault::StoreFault,
        reconciliations::{Reconciled, Reconciliation, ReconciliationStore},
        records::{
            Begun, Completed, Earlier, Ending, Erasure, FileFacts, Holder, ImagePage, Intent,
            Origin, Page, Progress, ReadRate, Record, RecordId, RecordQuery, RecordStore,
            UploadState, new_secret,
        },
    },
    telemetry::Operation,
};

pub(super) struct Records {
    counters: Arc<Counters>,
    /// Once it was read.
    secret: OnceLock<[u8; 32]>,
}

impl Records {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self {
            counters,
            secret: OnceLock::new(),
        }
    }

    async fn change<T>(&self, change: impl AsyncFn(&Statements) -> Run<T>) -> Result<T, Fault> {
        self.run(false, change).await
    }

    async fn query<T>(&self, query: impl AsyncFn(&Statements) -> Run<T>) -> Result<T, Fault> {
        self.run(true, query).await
    }

    async fn run<T>(
        &self,
        read_only: bool,
        statement: impl AsyncFn(&Statements) -> Run<T>,
    ) -> Result<T, Fault> {
        let run = async |batcher: Arc<Batcher>| match statement(batcher.statements()).await {
            Ok(done) => Ok(done),
            Err(RunError::Server(error)) => Err(write_fault(&error)),
            Err(RunError::Answer(fault)) => Err(fault),
        };
        let done = self
            .counters
            .run_on_connection(Operation::Record, read_only, run);
        done.await
            .map_err(|fault| self.counters.health.fault(fault))
    }
}

impl StorageStore for Records {
    fn storage_used(&self, counter: Counter) -> BoxFuture<'_, StorageUsed> {
        Box::pin(async move {
            self.query(async |it: &_| storage::used(it, &counter).await)
                .await
        })
    }
}

type Future<'a, T> = LocalBoxFuture<'a, Result<T, Fault>>;

impl EventStore for Records {
    fn take_events(
        &self,
        now: Timestamp,
        next: Timestamp,
        limit: u32,
    ) -> Future<'_, Vec<StoredEvent>> {
        Box::pin(self.change(async move |it: &_| events::take(it, now, next, limit).await))
    }

    fn finish_events(
        &self,
        delivered: Vec<Uuid>,
        failed: Vec<(Uuid, Timestamp)>,
    ) -> Future<'_, ()> {
        Box::pin(async move {
            self.change(async |it: &_| events::finish(it, &delivered, &failed).await)
                .await
        })
    }

    fn drop_events(&self, before: Timestamp, limit: u32) -> Future<'_, u64> {
        Box::pin(self.change(async move |it: &_| events::remove_old(it, before, limit).await))
    }

    fn backlog(&self) -> Future<'_, Backlog> {
        Box::pin(self.query(async move |it: &_| events::backlog(it).await))
    }
}

impl ReconciliationStore for Records {
    fn start_reconciliation(&self, id: Uuid) -> Future<'_, Uuid> {
        Box::pin(self.change(async move |it: &_| reconciliations::start(it, id).await))
    }

    fn reconciled(&self, id: Uuid) -> Future<'_, Option<Reconciled>> {
        Box::pin(self.query(async move |it: &_| reconciliations::find(it, id).await))
    }

    fn take_reconciliation(
        &self,
        now: Timestamp,
        until: Timestamp,
    ) -> Future<'_, Option<Reconciliation>> {
        Box::pin(self.change(async move |it: &_| reconciliations::take(it, now, until).await))
    }

    fn save_reconciliation(
        &self,
        reconciliation: Reconciliation,
        until: Timestamp,
    ) -> Future<'_, ()> {
        Box::pin(
            self.change(async move |it: &_| {
                reconciliations::save(it, &reconciliation, until).await
            }),
        )
    }
}

impl RecordStore for Records {
    fn secret(&self) -> Future<'_, [u8; 32]> {
        Box::pin(async move {
            if let Some(secret) = self.secret.get() {
                return Ok(*secret);
            }
            let fault = |fault| self.counters.health.fault(fault);
            let new = new_secret().map_err(fault)?;
            let secret = self.change(async |it: &_| erasures::keep_secret(it, new).await);
            let missing = || fault(StoreFault::Refused("the secret is missing".to_owned()));
            let secret = secret.await?.ok_or_else(missing)?;
            Ok(*self.secret.get_or_init(|| secret))
        })
    }

    fn begin(&self, intent: Arc<Intent>) -> Future<'_, Begun> {
        Box::pin(async move {
            self.change(async |it: &_| changes::begin(it, &intent).await)
                .await
        })
    }

    fn complete(
        &self,
        intent: Arc<Intent>,
        image: ImageId,
        follow_at: Timestamp,
    ) -> Future<'_, Completed> {
        Box::pin(async move {
            self.change(async |it: &_| changes::complete(it, &intent, &image, follow_at).await)
                .await
        })
    }

    fn withdraw(&self, id: RecordId) -> Future<'_, ()> {
        Box::pin(self.change(async move |it: &_| changes::withdraw(it, id).await))
    }

    fn replayed(&self, slot: [u8; 32]) -> Future<'_, Option<Earlier>> {
        Box::pin(self.query(async move |it: &_| queries::replayed(it, slot).await))
    }

    fn take_due(&self, now: Timestamp, next: Timestamp, limit: u32) -> Future<'_, Vec<Intent>> {
        Box::pin(self.change(async move |it: &_| changes::take_due(it, now, next, limit).await))
    }

    fn issued(&self, id: RecordId, origin: Origin, token: TokenId) -> Future<'_, ()> {
        Box::pin(async move {
            self.change(async |it: &_| changes::issued(it, id, &origin, &token).await)
                .await
        })
    }

    fn link(&self, id: RecordId, image: ImageId) -> Future<'_, ()> {
        Box::pin(async move {
            self.change(async |it: &_| changes::link(it, id, &image).await)
                .await
        })
    }

    fn settle(
        &self,
        id: RecordId,
        state: UploadState,
        real: FileFacts,
        events: Vec<NewEvent>,
    ) -> Future<'_, bool> {
        Box::pin(async move {
            self.change(async |it: &_| changes::settle(it, id, state, &real, &events).await)
                .await
        })
    }

    fn delete(
        &self,
        id: RecordId,
        ending: Ending,
        at: Timestamp,
        events: Vec<NewEvent>,
    ) -> Future<'_, bool> {
        Box::pin(async move {
            self.change(async |it: &_| changes::delete(it, id, ending, at, &events).await)
                .await
        })
    }

    fn take_followed(
        &self,
        now: Timestamp,
        next: Timestamp,
        limit: u32,
        rate: ReadRate,
    ) -> Future<'_, Vec<Record>> {
        Box::pin(self.change(async move |it: &_| following::take(it, now, next, limit, rate).await))
    }

    fn follow(&self, id: RecordId, at: Timestamp) -> Future<'_, ()> {
        Box::pin(self.change(async move |it: &_| following::follow(it, id, at).await))
    }

    fn follow_later(&self, next: Vec<(RecordId, Timestamp)>) -> Future<'_, ()> {
        Box::pin(async move {
            self.change(async |it: &_| following::later(it, &next).await)
                .await
        })
    }

    fn take_reads(&self, now: Timestamp, wanted: u32, rate: ReadRate) -> Future<'_, u32> {
        Box::pin(
            self.change(async move |it: &_| following::take_reads(it, now, wanted, rate).await),
        )
    }

    fn recount(&self, id: RecordId, counters: Vec<Counter>) -> Future<'_, bool> {
        Box::pin(async move {
            self.change(async |it: &_| storage::recount(it, id, &counters).await)
                .await
        })
    }

    fn image(&self, image: &ImageId) -> Future<'_, Option<Record>> {
        let image = image.clone();
        Box::pin(async move {
            self.query(async |it: &_| queries::by_image(it, &image).await)
                .await
        })
    }

    fn images(&self, holder: Holder, page: Page) -> Future<'_, ImagePage> {
        Box::pin(async move {
            self.query(async |it: &_| queries::images(it, &holder, page).await)
                .await
        })
    }

    fn find(&self, query: RecordQuery, page: Page) -> Future<'_, Vec<Record>> {
        Box::pin(async move {
            self.query(async |it: &_| queries::find(it, &query, page).await)
                .await
        })
    }

    fn export(&self, after: Option<RecordId>, limit: u32) -> Future<'_, Vec<Record>> {
        Box::pin(self.query(async move |it: &_| queries::export(it, after, limit).await))
    }

    fn remove(&self, id: RecordId) -> Future<'_, ()> {
        Box::pin(self.change(async move |it: &_| changes::remove(it, id).await))
    }

    fn remove_old(&self, before: Timestamp, limit: u32) -> Future<'_, u64> {
        Box::pin(self.change(async move |it: &_| changes::remove_old(it, before, limit).await))
    }

    fn start_erasure(&self, erasure: Erasure) -> Future<'_, ()> {
        Box::pin(async move {
            self.change(async |it: &_| erasures::start(it, &erasure).await)
                .await
        })
    }

    fn erasure(&self, id: Uuid) -> Future<'_, Option<Progress>> {
        Box::pin(self.query(async move |it: &_| erasures::progress(it, id).await))
    }

    fn take_erasure(&self, now: Timestamp, until: Timestamp) -> Future<'_, Option<Erasure>> {
        Box::pin(self.change(async move |it: &_| erasures::take(it, now, until).await))
    }

    fn hold_erasure(&self, id: Uuid, until: Timestamp) -> Future<'_, ()> {
        Box::pin(self.change(async move |it: &_| erasures::hold(it, id, until).await))
    }

    fn update_erasure(&self, id: Uuid, progress: Progress) -> Future<'_, ()> {
        Box::pin(self.change(async move |it: &_| erasures::update(it, id, progress).await))
    }
}
