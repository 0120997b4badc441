//! Limits how many lookups one user can run at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::outbound::digest::{Digest, digest};

/// Fewer than the connections to a database, so that one user with slow lookups does not block the others.
const AT_ONCE: usize = 2;

/// The users with lookups in progress. Other users take no memory.
#[derive(Default)]
pub struct Turns(Mutex<HashMap<Digest, Arc<Semaphore>>>);

/// The right to look something up, or a place in the queue for it.
#[must_use = "the right ends when it is dropped"]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    user: Digest,
    places: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// Waits until `user` may look something up in this part of the config.
    pub(super) async fn turn(&self, part: &str, user: &str) -> Turn<'_> {
        let user = digest([part, user]);
        let places = {
            let mut users = self.lock();
            let places = users
                .entry(user)
                .or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE)));
            places.clone()
        };
        let mut turn = Turn {
            turns: self,
            user,
            places,
            permit: None,
        };
        // The semaphore is never closed, so there always is a permit.
        turn.permit = turn.places.clone().acquire_owned().await.ok();
        turn
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Semaphore>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        drop(self.permit.take());
        let mut users = self.turns.lock();
        // The map holds one reference, and this is the other.
        if Arc::strong_count(&self.places) == 2 {
            users.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[actix_web::test]
    async fn a_user_has_two_turns_and_leaves_nothing_behind() {
        let turns = Turns::default();
        let first = turns.turn("stores.app", "user_1").await;
        let second = turns.turn("stores.app", "user_1").await;
        let mut third = Box::pin(turns.turn("stores.app", "user_1"));
        assert!((&mut third).now_or_never().is_none(), "it waits");
        let others = [
            turns.turn("stores.app", "user_2").await,
            turns.turn("policies.member", "user_1").await,
        ];
        drop(first);
        let third = (&mut third).now_or_never();
        assert!(third.is_some(), "it has a turn");
        // A waiter that gives up leaves nothing either.
        let fourth = turns.turn("stores.app", "user_1");
        assert!(fourth.now_or_never().is_none());
        drop((second, third, others));
        assert_eq!(turns.lock().len(), 0);
    }
}
