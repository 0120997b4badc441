//! Records of uploads in the file of the quotas.
//!
//! A change is written in the commit that the quotas of its request are in, so a request that reserves a unit and records
//! an intent waits for one commit. A change whose commit fails is not written later: its request fails.
//!
//! - [`changes`]: the SQL of changes.
//! - [`queries`]: the SQL of reads.
//! - [`erasures`]: erasures of a person's images.
//! - [`rows`]: the tables, and how values are stored.

mod changes;
mod erasures;
mod queries;
mod read_only;
mod rows;

use std::sync::{Arc, OnceLock};

use futures_util::future::LocalBoxFuture;
use jiff::Timestamp;
use policies::{Fault, ImageId, TokenId};
use rusqlite::Connection;
use uuid::Uuid;

use super::quotas::Counters;
use crate::stores::{
    fault::StoreFault,
    records::{
        Earlier, Erasure, FileFacts, Holder, ImagePage, Intent, Origin, Page, Progress, Record,
        RecordId, RecordQuery, RecordStore, UploadState, new_secret,
    },
};

/// Creates missing tables.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(rows::CREATE)
}

/// Makes what an earlier process left due: it no longer works on it.
pub(super) fn take_over(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "UPDATE upload_intents SET due_at = 0; UPDATE upload_erasures SET taken_until = 0",
    )
}

/// Keeps `new`, unless there is a secret.
fn keep_secret(connection: &Connection, new: [u8; 32]) -> rusqlite::Result<[u8; 32]> {
    let insert = "INSERT INTO upload_secret VALUES (1, ?) ON CONFLICT DO NOTHING";
    connection.execute(insert, [new])?;
    find_secret(connection)
}

fn find_secret(connection: &Connection) -> rusqlite::Result<[u8; 32]> {
    connection.query_row("SELECT secret FROM upload_secret", [], |row| row.get(0))
}

impl Counters {
    /// Resolves when the change is on disk.
    async fn change<T: Send + Sync + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let shared = self.shared();
        shared.require_up()?;
        let result = Arc::new(OnceLock::new());
        let filled = result.clone();
        let commit = shared.change_records(Box::new(move |connection| {
            // Only this sets it.
            let _ = filled.set(change(connection)?);
            Ok(())
        }));
        shared.wait(&commit).await?;
        // The writer has dropped its part.
        let result = Arc::into_inner(result).and_then(OnceLock::into_inner);
        result.ok_or_else(|| shared.health.fault(StoreFault::Down))
    }

    async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let shared = self.shared();
        shared.require_up()?;
        let answer = self.reader().read(query).await;
        answer.map_err(|fault| shared.health.fault(fault))
    }
}

type Future<'a, T> = LocalBoxFuture<'a, Result<T, Fault>>;

impl RecordStore for Counters {
    fn secret(&self) -> Future<'_, [u8; 32]> {
        Box::pin(async move {
            if let Some(secret) = self.known_secret().get() {
                return Ok(*secret);
            }
            let new = new_secret().map_err(|fault| self.shared().health.fault(fault))?;
            let secret = self.change(move |connection| keep_secret(connection, new));
            let secret = secret.await?;
            Ok(*self.known_secret().get_or_init(|| secret))
        })
    }

    fn begin(&self, intent: Arc<Intent>) -> Future<'_, bool> {
        Box::pin(self.change(move |connection| changes::begin(connection, &intent)))
    }

    fn complete(&self, intent: Arc<Intent>, image: ImageId) -> Future<'_, bool> {
        Box::pin(self.change(move |connection| changes::complete(connection, &intent, &image)))
    }

    fn withdraw(&self, id: RecordId) -> Future<'_, ()> {
        Box::pin(self.change(move |connection| changes::withdraw(connection, id).map(drop)))
    }

    fn replayed(&self, slot: [u8; 32]) -> Future<'_, Option<Earlier>> {
        Box::pin(self.query(move |connection| queries::replayed(connection, &slot)))
    }

    fn take_due(&self, now: Timestamp, next: Timestamp, limit: u32) -> Future<'_, Vec<Intent>> {
        Box::pin(self.change(move |connection| changes::take_due(connection, now, next, limit)))
    }

    fn issued(&self, id: RecordId, origin: Origin, token: TokenId) -> Future<'_, ()> {
        Box::pin(self.change(move |connection| changes::issued(connection, id, &origin, &token)))
    }

    fn link(&self, id: RecordId, image: ImageId) -> Future<'_, ()> {
        Box::pin(self.change(move |connection| changes::link(connection, id, &image)))
    }

    fn observe(&self, id: RecordId, state: UploadState, real: FileFacts) -> Future<'_, ()> {
        Box::pin(self.change(move |connection| changes::observe(connection, id, state, &real)))
    }

    fn delete(&self, id: RecordId, at: Timestamp) -> Future<'_, ()> {
        Box::pin(self.change(move |connection| changes::delete(connection, id, at)))
    }

    fn image(&self, image: &ImageId) -> Future<'_, Option<Record>> {
        let image = image.clone();
        Box::pin(self.query(move |connection| queries::by_image(connection, &image)))
    }

    fn images(&self, holder: Holder, page: Page) -> Future<'_, ImagePage> {
        Box::pin(self.query(move |connection| queries::images(connection, &holder, page)))
    }

    fn find(&self, query: RecordQuery, page: Page) -> Future<'_, Vec<Record>> {
        Box::pin(self.query(move |connection| queries::find(connection, &query, page)))
    }

    fn export(&self, after: Option<RecordId>, limit: u32) -> Future<'_, Vec<Record>> {
        Box::pin(self.query(move |connection| queries::export(connection, after, limit)))
    }

    fn remove(&self, id: RecordId) -> Future<'_, ()> {
        Box::pin(self.change(move |connection| changes::remove(connection, id)))
    }

    fn remove_old(&self, before: Timestamp, limit: u32) -> Future<'_, u64> {
        Box::pin(self.change(move |connection| changes::remove_old(connection, before, limit)))
    }

    fn start_erasure(&self, erasure: Erasure) -> Future<'_, ()> {
        Box::pin(self.change(move |connection| erasures::start(connection, &erasure)))
    }

    fn erasure(&self, id: Uuid) -> Future<'_, Option<Progress>> {
        Box::pin(self.query(move |connection| erasures::progress(connection, id)))
    }

    fn take_erasure(&self, now: Timestamp, until: Timestamp) -> Future<'_, Option<Erasure>> {
        Box::pin(self.change(move |connection| erasures::take(connection, now, until)))
    }

    fn hold_erasure(&self, id: Uuid, until: Timestamp) -> Future<'_, ()> {
        Box::pin(self.change(move |connection| erasures::hold(connection, id, until)))
    }

    fn update_erasure(&self, id: Uuid, progress: Progress) -> Future<'_, ()> {
        let now = self.shared().clock().now();
        Box::pin(self.change(move |connection| erasures::update(connection, id, progress, now)))
    }
}
