//! Limits how many lookups one user can run at the same time.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::outbound::digest::{Digest, digest};

/// Fewer than the connections to a database, so that one user with slow lookups does not block the others.
const SLOTS_PER_USER: usize = 2;

/// The users with lookups in progress. Other users take no memory.
#[derive(Default)]
pub struct LookupSlots(Mutex<HashMap<Digest, Arc<Semaphore>>>);

/// A permit for one lookup, or a place in the queue for it.
#[must_use = "the slot is released when it is dropped"]
pub(super) struct LookupSlot<'a> {
    slots: &'a LookupSlots,
    user: Digest,
    semaphore: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl LookupSlots {
    /// Waits until `user` may run a lookup in this part of the config.
    pub(super) async fn acquire(&self, part: &str, user: &str) -> LookupSlot<'_> {
        let user = digest([part, user]);
        let semaphore = {
            let mut users = self.0.lock();
            let semaphore = users
                .entry(user)
                .or_insert_with(|| Arc::new(Semaphore::new(SLOTS_PER_USER)));
            semaphore.clone()
        };
        let mut slot = LookupSlot {
            slots: self,
            user,
            semaphore,
            permit: None,
        };
        // The semaphore is never closed, so there always is a permit.
        slot.permit = slot.semaphore.clone().acquire_owned().await.ok();
        slot
    }
}

impl Drop for LookupSlot<'_> {
    fn drop(&mut self) {
        drop(self.permit.take());
        let mut users = self.slots.0.lock();
        // The map holds one reference, and this is the other.
        if Arc::strong_count(&self.semaphore) == 2 {
            users.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[actix_web::test]
    async fn a_user_has_two_slots_and_leaves_nothing_behind() {
        let slots = LookupSlots::default();
        let first = slots.acquire("stores.app", "user_1").await;
        let second = slots.acquire("stores.app", "user_1").await;
        let mut third = Box::pin(slots.acquire("stores.app", "user_1"));
        assert!((&mut third).now_or_never().is_none(), "it waits");
        let others = [
            slots.acquire("stores.app", "user_2").await,
            slots.acquire("policies.member", "user_1").await,
        ];
        drop(first);
        let third = (&mut third).now_or_never();
        assert!(third.is_some(), "it has a slot");
        // A waiter that is dropped leaves nothing behind either.
        let fourth = slots.acquire("stores.app", "user_1");
        assert!(fourth.now_or_never().is_none());
        drop((second, third, others));
        assert_eq!(slots.0.lock().len(), 0);
    }
}
