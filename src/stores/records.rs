//! Records of uploads: which image, and which upload token, belongs to whom.
//!
//! A record begins as an intent, before Imgwire is asked. It names the image as soon as Imgwire has created it, before the
//! client gets the answer. So an image that the gate asked for has an owner, whenever the gate is killed: what became of
//! an intent is found out by repeating its call, which is kept with it until then.

use std::{sync::Arc, time::Duration};

use futures_util::future::LocalBoxFuture;
use jiff::{SignedDuration, Timestamp};
use policies::{
    Counter, Fault, ImageId, PolicyName, Purpose, RoutePath, StorageCharge, StorageFull,
    StorageStore, SubjectId, TokenId, WorkspaceId,
};
use serde::Serialize;
use uuid::Uuid;

use super::{
    events::{EventStore, NewEvent},
    fault::StoreFault,
    reconciliations::ReconciliationStore,
};

pub use super::record_id::RecordId;

/// The type and the size of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileFacts {
    pub mime_type: Option<String>,
    pub size: Option<u64>,
}

/// Who asked for what, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub subject: SubjectId,
    pub workspace: Option<WorkspaceId>,
    pub route: RoutePath,
    pub purpose: Option<Purpose>,
    pub declared: FileFacts,
    pub created_at: Timestamp,
}

/// An upload that Imgwire is about to be asked for.
#[derive(Clone, Debug)]
pub struct Intent {
    pub id: RecordId,
    pub origin: Origin,
    /// Only if the client sent an idempotency key.
    pub replay: Option<Replay>,
    /// The body of the call to Imgwire as JSON, kept until its image is known.
    pub call: Arc<str>,
    /// What the upload takes of the storage. Empty if a store returns the intent, which has taken it.
    pub charges: Arc<[StorageCharge]>,
    /// When the request that records this has ended for certain, so that the gate may repeat the call.
    pub due_at: Timestamp,
}

/// The result of [`RecordStore::begin`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The intent is recorded, and the storage is charged, even if policies whose denials are not enforced would deny.
    Recorded(Vec<(PolicyName, StorageFull)>),
    /// Another upload has the slot. Nothing was recorded.
    SlotTaken,
    /// The upload does not fit into the storage of this policy. Nothing was recorded.
    Full(PolicyName, StorageFull),
}

/// The result of [`RecordStore::complete`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Completed {
    /// This call named the image.
    Now,
    /// Another call had named the same image.
    Before,
    /// The record is deleted, or names another image. Nothing was changed.
    Never,
}

/// Finds an upload again by the idempotency key of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// A keyed digest of the owner, the route and the key of the client. Of the records that have an upload, at most one
    /// has it: a deletion frees it.
    pub slot: [u8; 32],
    /// A digest of the parameters of the call.
    pub parameters: [u8; 32],
}

/// What became of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::IntoStaticStr, strum::EnumString)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum UploadState {
    /// A token was issued. Its image is not known.
    Issued,
    /// Imgwire was asked for the image, and it is not known whether it created it.
    Requested,
    /// The image exists. Its bytes may not have arrived.
    Open,
    Ready,
    Quarantined,
    /// The file did not arrive in time, and the image was deleted.
    Abandoned,
    Deleted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub id: RecordId,
    pub origin: Origin,
    pub image: Option<ImageId>,
    pub token: Option<TokenId>,
    /// As Imgwire has measured the file.
    pub real: FileFacts,
    pub state: UploadState,
    pub deleted_at: Option<Timestamp>,
}

/// An upload that exists or is being created, found by the idempotency key of the client.
#[derive(Clone, Debug)]
pub struct Earlier {
    pub id: RecordId,
    pub image: Option<ImageId>,
    pub parameters: [u8; 32],
    /// The call, unless the image is known.
    pub call: Option<Arc<str>>,
}

/// Whose images to list: the ones of a workspace, or the ones of a user on a route without workspaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    Workspace(WorkspaceId),
    /// Only images without a workspace.
    Subject(SubjectId),
}

/// Which records an operator asks for. All that are set must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordQuery {
    pub image: Option<ImageId>,
    pub token: Option<TokenId>,
    pub subject: Option<SubjectId>,
    pub workspace: Option<WorkspaceId>,
}

/// A part of a list, the newest first. Pages are numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub number: u64,
    pub size: u32,
}

/// The images on a page, and how many all pages have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagePage {
    pub images: Vec<ImageId>,
    pub total: u64,
}

/// The erasure of a person's images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    pub id: Uuid,
    pub subject: SubjectId,
    /// Later records are not erased.
    pub until: RecordId,
    pub progress: Progress,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    pub done: bool,
    /// How many images were deleted.
    pub deleted: u64,
    /// How many images could not be deleted.
    pub failed: u64,
}

type Future<'a, T> = LocalBoxFuture<'a, Result<T, Fault>>;

/// How an image ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Deleted,
    Abandoned,
}

impl From<Ending> for UploadState {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Deleted => Self::Deleted,
            Ending::Abandoned => Self::Abandoned,
        }
    }
}

/// How many images may be read per second to follow uploads, by all gates together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRate {
    pub limit: u32,
    pub period: Duration,
}

/// A store of records. A change is durable when its future resolves. If the future fails or is dropped, the change may
/// have been made or not.
pub trait RecordStore: StorageStore + EventStore + ReconciliationStore + Send + Sync {
    /// A random secret that the store keeps, for keyed digests. It is the same for all gates that share the store.
    fn secret(&self) -> Future<'_, [u8; 32]>;

    /// Records an intent, and takes what it charges of the storage.
    fn begin(&self, intent: Arc<Intent>) -> Future<'_, Begun>;

    /// Names the image of an intent, and drops its call. The upload is followed from `follow_at` on. Records the intent if it
    /// is missing, without its slot if another upload has that, and then takes its storage even if it does not fit. An intent
    /// that is passed without its slot frees the slot.
    fn complete(
        &self,
        intent: Arc<Intent>,
        image: ImageId,
        follow_at: Timestamp,
    ) -> Future<'_, Completed>;

    /// Removes an intent that led to no image, and gives back its storage.
    fn withdraw(&self, id: RecordId) -> Future<'_, ()>;

    /// Finds the upload that has this slot.
    fn replayed(&self, slot: [u8; 32]) -> Future<'_, Option<Earlier>>;

    /// Takes at most `limit` intents that are due at `now`, and lets them be due again at `next`. Of several gates, each
    /// takes others. An intent that repeats the call of one with a slot waits until that is settled, because a request may
    /// name its image until then.
    fn take_due(&self, now: Timestamp, next: Timestamp, limit: u32) -> Future<'_, Vec<Intent>>;

    /// Records which token went to whom.
    fn issued(&self, id: RecordId, origin: Origin, token: TokenId) -> Future<'_, ()>;

    /// Names the image that a token led to.
    fn link(&self, id: RecordId, image: ImageId) -> Future<'_, ()>;

    /// Records the state of an image that exists, as Imgwire reports it, and the real type and size, by which its storage
    /// counts from then on. The upload is no longer followed, unless it stays open. Adds the events, and returns `true`, if
    /// the state changes.
    fn settle(
        &self,
        id: RecordId,
        state: UploadState,
        real: FileFacts,
        events: Vec<NewEvent>,
    ) -> Future<'_, bool>;

    /// Records that the image was deleted, frees its slot, and gives back its storage. Adds the events, and returns `true`,
    /// if it was not deleted before.
    fn delete(
        &self,
        id: RecordId,
        ending: Ending,
        at: Timestamp,
        events: Vec<NewEvent>,
    ) -> Future<'_, bool>;

    /// Takes at most `limit` uploads that are followed and due at `now`, and lets them be due again at `next`. Of several
    /// gates, each takes others. All gates together take no more than `rate` allows.
    fn take_followed(
        &self,
        now: Timestamp,
        next: Timestamp,
        limit: u32,
        rate: ReadRate,
    ) -> Future<'_, Vec<Record>>;

    /// Lets an image that exists be followed from `at` on, because it is being deleted, or was missing in a read.
    fn follow(&self, id: RecordId, at: Timestamp) -> Future<'_, ()>;

    /// Lets uploads that are still followed be due at these times.
    fn follow_later(&self, next: Vec<(RecordId, Timestamp)>) -> Future<'_, ()>;

    /// Takes at most `wanted` reads of the rate of [`take_followed`](Self::take_followed), for other work. Returns how many.
    fn take_reads(&self, now: Timestamp, wanted: u32, rate: ReadRate) -> Future<'_, u32>;

    /// Counts an image that exists in these counters of storage, and in no other ones. Returns whether that is a change.
    fn recount(&self, id: RecordId, counters: Vec<Counter>) -> Future<'_, bool>;

    /// Finds the record of an image, unless the image was deleted.
    fn image(&self, image: &ImageId) -> Future<'_, Option<Record>>;

    /// Lists images that were not deleted, the newest first.
    fn images(&self, holder: Holder, page: Page) -> Future<'_, ImagePage>;

    /// Finds records, the newest first.
    fn find(&self, query: RecordQuery, page: Page) -> Future<'_, Vec<Record>>;

    /// Lists all records after `after`, the oldest first.
    fn export(&self, after: Option<RecordId>, limit: u32) -> Future<'_, Vec<Record>>;

    /// Removes a record, as if it had never been, and gives back its storage.
    fn remove(&self, id: RecordId) -> Future<'_, ()>;

    /// Removes up to `limit` records of images that were deleted before `before`, and of tokens that were issued before it
    /// and whose image is not known. Returns how many.
    fn remove_old(&self, before: Timestamp, limit: u32) -> Future<'_, u64>;

    fn start_erasure(&self, erasure: Erasure) -> Future<'_, ()>;

    fn erasure(&self, id: Uuid) -> Future<'_, Option<Progress>>;

    /// Takes an erasure that is not done and not taken, until `until`. Of several gates, one works on it.
    fn take_erasure(&self, now: Timestamp, until: Timestamp) -> Future<'_, Option<Erasure>>;

    /// Keeps an erasure taken until `until`.
    fn hold_erasure(&self, id: Uuid, until: Timestamp) -> Future<'_, ()>;

    fn update_erasure(&self, id: Uuid, progress: Progress) -> Future<'_, ()>;
}

/// How long progress of an erasure is kept after it is done.
pub const ERASURE_KEPT: SignedDuration = SignedDuration::from_hours(24 * 30);

/// A candidate for [`RecordStore::secret`].
pub(super) fn new_secret() -> Result<[u8; 32], StoreFault> {
    let mut secret = [0; 32];
    let filled = aws_lc_rs::rand::fill(&mut secret);
    let failed = |_| StoreFault::Refused("the system's random generator failed".to_owned());
    filled.map(|()| secret).map_err(failed)
}
