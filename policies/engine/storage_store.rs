//! Storage: the port of the kind `storage`, and what the policy says about one of its counters.

use crate::{BoxFuture, Counter, PolicyName, StorageFull, StorageUnit};

/// A store of the storage that is held. It counts in the transactions that record uploads, so that what is counted equals
/// what is recorded.
pub trait StorageStore: Send + Sync {
    /// Returns what is counted.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`](crate::Fault) if the store fails.
    fn storage_used(&self, counter: Counter) -> BoxFuture<'_, StorageUsed>;
}

/// What a counter of `storage` counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StorageUsed {
    /// The bytes of all images. Those of an open upload are the declared ones.
    pub bytes: u64,
    /// The number of images, with the open uploads.
    pub images: u64,
    /// The number of open uploads: those whose file may not have arrived, or is not processed yet.
    pub open: u64,
}

/// The limits of a counter of `storage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageLimits {
    /// The most bytes, if they are limited.
    pub max_bytes: Option<u64>,
    /// The most images, if they are limited.
    pub max_images: Option<u64>,
    /// The most open uploads.
    pub max_open: u64,
}

impl StorageLimits {
    /// Returns the limit that one more upload of `bytes` exceeds, if any: its unit, how much is used, and the limit.
    #[must_use]
    pub fn exceeded(self, used: StorageUsed, bytes: u64) -> Option<(StorageUnit, u64, u64)> {
        let most = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        let checks = [
            (StorageUnit::Open, used.open, 1, self.max_open),
            (StorageUnit::Images, used.images, 1, most(self.max_images)),
            (StorageUnit::Bytes, used.bytes, bytes, most(self.max_bytes)),
        ];
        let mut checks = checks.into_iter();
        let (unit, used, _, limit) =
            checks.find(|(_, used, more, limit)| used.saturating_add(*more) > *limit)?;
        Some((unit, used, limit))
    }
}

/// What an upload takes of a counter, when it is recorded. Only then is it known whether it fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageCharge {
    /// The counter.
    pub counter: Counter,
    /// What the counter may count.
    pub limits: StorageLimits,
    /// The counter in words, for [`StorageFull`].
    pub key: String,
    /// Why a default limit applies, if a limit depends on a claim.
    pub note: Option<String>,
    /// Whether the upload is denied if it does not fit. Otherwise it is counted, and the denial is logged.
    pub is_enforced: bool,
}

impl StorageCharge {
    /// Returns why an upload of `bytes` does not fit, if so.
    #[must_use]
    pub fn check(&self, used: StorageUsed, bytes: u64) -> Option<StorageFull> {
        let (unit, used, limit) = self.limits.exceeded(used, bytes)?;
        Some(StorageFull {
            unit,
            used,
            limit,
            asked: (unit == StorageUnit::Bytes).then_some(bytes),
            key: self.key.clone(),
            note: self.note.clone(),
        })
    }
}

/// What a counter counts now, as a preview shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageState {
    /// The name of the policy.
    pub policy: PolicyName,
    /// What the counter may count.
    pub limits: StorageLimits,
    /// What it counts.
    pub used: StorageUsed,
}
