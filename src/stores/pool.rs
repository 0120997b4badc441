//! A pool of connections that one operation at a time has to itself.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A bounded number of connections. One goes back only if it [is given back](Turn::give_back), which its user does
/// after the whole answer was read; one that is dropped is closed.
pub(super) struct Pool<C> {
    turns: Arc<Semaphore>,
    /// With how often the store had come back when they were made.
    idle: Mutex<Vec<(u32, C)>>,
}

/// The right to use one connection.
pub(super) struct Turn<C> {
    pool: Arc<Pool<C>>,
    returns: u32,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<C> Pool<C> {
    pub(super) fn new(size: usize) -> Arc<Self> {
        Arc::new(Self {
            turns: Arc::new(Semaphore::new(size)),
            idle: Mutex::default(),
        })
    }

    /// Waits for a turn. `returns` says how often the store has come back: connections that are older are closed.
    pub(super) async fn turn(self: &Arc<Self>, returns: u32) -> Turn<C> {
        Turn {
            // It is never closed, so there is always one.
            _permit: self.turns.clone().acquire_owned().await.ok(),
            pool: self.clone(),
            returns,
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(u32, C)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Turn<C> {
    /// A connection that was used before, if there is one.
    pub(super) fn idle_connection(&self) -> Option<C> {
        let mut idle = self.pool.idle();
        idle.retain(|(returns, _)| *returns == self.returns);
        idle.pop().map(|(_, connection)| connection)
    }

    /// Gives a connection back whose operation is over.
    pub(super) fn give_back(self, connection: C) {
        self.pool.idle().push((self.returns, connection));
    }
}
