//! Idempotency keys: which upload a client repeats, and the key that Imgwire gets.

use std::{collections::BTreeSet, sync::OnceLock, time::Duration};

use aws_lc_rs::{digest, hmac};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use policies::{Fault, RoutePath, SubjectId, WorkspaceId};

use crate::stores::{RecordId, RecordStore};

/// Derives keys from the secret of a store, so that clients cannot compute them.
pub(super) struct KeySecret(hmac::Key);

/// The secret of the store of a route, once it was read.
#[derive(Default)]
pub struct StoreSecret(OnceLock<Box<KeySecret>>);

impl StoreSecret {
    pub(super) async fn get_or_read(&self, store: &dyn RecordStore) -> Result<&KeySecret, Fault> {
        if let Some(secret) = self.0.get() {
            return Ok(secret);
        }
        let secret = store.secret().await?;
        Ok(self.0.get_or_init(|| Box::new(KeySecret::new(&secret))))
    }
}

impl KeySecret {
    #[must_use]
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The key that Imgwire gets. It belongs to one record, so that it is never used again after the image was deleted.
    #[must_use]
    pub(super) fn imgwire_key(&self, id: RecordId) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.sign([b"upload".as_slice(), id.0.as_bytes()]))
    }

    /// The slot of an upload. The same key of another owner, or for another route, is another slot.
    #[must_use]
    pub(super) fn slot(
        &self,
        subject: &SubjectId,
        workspace: Option<&WorkspaceId>,
        route: &RoutePath,
        key: &str,
    ) -> [u8; 32] {
        // No workspace has an empty id.
        let workspace = workspace.map_or("", WorkspaceId::as_str);
        let parts = ["slot", subject.as_str(), workspace, route.as_str(), key];
        self.sign(parts.map(str::as_bytes))
    }

    /// Also signs the length of each part, so that different parts never have the same signature.
    fn sign<const N: usize>(&self, parts: [&[u8]; N]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        bytes(context.sign().as_ref())
    }
}

/// How often a request looks whether an earlier one with the same key has ended: for two seconds.
pub(super) const MAX_POLLS: u32 = 40;
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The digests that are claimed. A slot is derived from the secret of a store, and a call has an id, so both belong to one
/// store.
static CLAIMED: Mutex<BTreeSet<[u8; 32]>> = Mutex::new(BTreeSet::new());

/// Of the tasks of this process that claim the same digest, one at a time has it.
///
/// Requests claim their slot before they go through the limits. Otherwise each would take a unit of a quota before it is
/// known that they repeat one upload. What repeats a call claims that, so that recovery does not delete an image that a
/// client is about to get.
pub(super) struct Claim([u8; 32]);

impl Claim {
    /// `None` if the digest is claimed.
    pub(super) fn take(digest: [u8; 32]) -> Option<Self> {
        CLAIMED.lock().insert(digest).then(|| Self(digest))
    }

    /// Waits for the digest. `None` if an earlier task takes too long.
    pub(super) async fn wait(digest: [u8; 32]) -> Option<Self> {
        for _ in 0..MAX_POLLS {
            if let Some(claim) = Self::take(digest) {
                return Some(claim);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        None
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        CLAIMED.lock().remove(&self.0);
    }
}

/// A SHA-256.
#[must_use]
pub(super) fn digest_of(text: &str) -> [u8; 32] {
    bytes(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

fn bytes(digest: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest);
    bytes
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn every_part_of_a_slot_matters() {
        let secret = KeySecret::new(&[7; 32]);
        let slot = |subject: &str, workspace: Option<&str>, route: &str, key: &str| {
            let workspace = workspace.map(|id| WorkspaceId::parse(id).unwrap());
            let (subject, route) = (SubjectId::parse(subject), RoutePath::parse(route));
            secret.slot(&subject.unwrap(), workspace.as_ref(), &route.unwrap(), key)
        };
        let first = slot("a", Some("b"), "/c", "d");
        assert_eq!(slot("a", Some("b"), "/c", "d"), first);
        for other in [
            slot("x", Some("b"), "/c", "d"),
            slot("a", Some("x"), "/c", "d"),
            slot("a", None, "/c", "d"),
            slot("a", Some("b"), "/x", "d"),
            slot("a", Some("b"), "/c", "x"),
            slot("ab", None, "/c", "d"),
            slot("a", Some("b/"), "c", "d"),
            KeySecret::new(&[8; 32]).slot(
                &SubjectId::parse("a").unwrap(),
                Some(&WorkspaceId::parse("b").unwrap()),
                &RoutePath::parse("/c").unwrap(),
                "d",
            ),
        ] {
            assert_ne!(other, first);
        }
    }

    #[test]
    fn the_key_for_imgwire_differs_for_each_record() {
        let secret = KeySecret::new(&[7; 32]);
        let key = |id| secret.imgwire_key(RecordId(Uuid::from_u128(id)));
        assert_eq!(key(1), key(1));
        assert_ne!(key(1), key(2));
        assert_eq!(key(1).len(), 43);
    }
}
