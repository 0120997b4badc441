//! A pool of connections, each used by one operation at a time.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A bounded number of connections. A connection returns only by [`give_back`](Turn::give_back), after the whole answer
/// was read. A dropped connection is closed.
pub(super) struct Pool<C> {
    turns: Arc<Semaphore>,
    /// With how often the store had come back up when they were made.
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

    /// `returns` says how often the store has come back up: older connections are closed.
    pub(super) async fn turn(self: &Arc<Self>, returns: u32) -> Turn<C> {
        Turn {
            // The semaphore is never closed, so there always is a permit.
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
    pub(super) fn idle_connection(&self) -> Option<C> {
        let mut idle = self.pool.idle();
        idle.retain(|(returns, _)| *returns == self.returns);
        idle.pop().map(|(_, connection)| connection)
    }

    /// Returns a connection after its operation has completed.
    pub(super) fn give_back(self, connection: C) {
        self.pool.idle().push((self.returns, connection));
    }
}
