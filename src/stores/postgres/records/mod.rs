//! Records of uploads.
//!
//! - [`changes`]: the statements that change records.
//! - [`queries`]: the statements that read them.
//! - [`erasures`]: erasures of a person's images, and the secret.
//! - [`rows`]: how values are stored.

mod changes;
mod erasures;
mod queries;
mod rows;

use std::sync::{Arc, OnceLock};

use futures_util::future::LocalBoxFuture;
use jiff::Timestamp;
use policies::{BoxFuture, Counter, Fault, ImageId, StorageStore, StorageUsed, TokenId};
use uuid::Uuid;

use self::rows::{Run, RunError};
use super::{batch::Batcher, connect::write_fault, quotas::Counters, statements::Statements};
use crate::{
    stores::{
        events::{EventStore, NewEvent},
        fault::StoreFault,
        reconciliations::ReconciliationStore,
        records::{
            Begun, Earlier, Ending, Erasure, FileFacts, Holder, ImagePage, Intent, Origin, Page,
            Progress, Record, RecordId, RecordQuery, RecordStore, UploadState, new_secret,
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
    fn storage_used(&self, _counter: Counter) -> BoxFuture<'_, StorageUsed> {
        Box::pin(std::future::ready(Ok(StorageUsed::default())))
    }
}

impl EventStore for Records {}

impl ReconciliationStore for Records {}

type Future<'a, T> = LocalBoxFuture<'a, Result<T, Fault>>;

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
        _follow_at: Timestamp,
    ) -> Future<'_, bool> {
        Box::pin(async move {
            self.change(async |it: &_| changes::complete(it, &intent, &image).await)
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
        _events: Vec<NewEvent>,
    ) -> Future<'_, bool> {
        Box::pin(async move {
            self.change(async |it: &_| changes::observe(it, id, state, &real).await)
                .await
                .map(|()| true)
        })
    }

    fn delete(
        &self,
        id: RecordId,
        _ending: Ending,
        at: Timestamp,
        _events: Vec<NewEvent>,
    ) -> Future<'_, bool> {
        Box::pin(async move {
            self.change(async move |it: &_| changes::delete(it, id, at).await)
                .await
                .map(|()| true)
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
