//! A pool of connections, each used by one operation at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A bounded number of connections. A connection is reused only if [`Permit::reuse`] returns it, after the whole answer
/// was read. Otherwise it is closed when it is dropped.
pub(super) struct Pool<C> {
    permits: Arc<Semaphore>,
    /// With how often the store had recovered when they were made.
    idle: Mutex<Vec<(u32, C)>>,
}

/// The right to use one connection.
pub(super) struct Permit<C> {
    pool: Arc<Pool<C>>,
    recoveries: u32,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<C> Pool<C> {
    pub(super) fn new(size: usize) -> Arc<Self> {
        Arc::new(Self {
            permits: Arc::new(Semaphore::new(size)),
            idle: Mutex::default(),
        })
    }

    /// Connections from before the latest of the store's `recoveries` are closed.
    pub(super) async fn acquire(self: &Arc<Self>, recoveries: u32) -> Permit<C> {
        Permit {
            // The semaphore is never closed, so there always is a permit.
            _permit: self.permits.clone().acquire_owned().await.ok(),
            pool: self.clone(),
            recoveries,
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(u32, C)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Permit<C> {
    pub(super) fn idle_connection(&self) -> Option<C> {
        let mut idle = self.pool.idle();
        idle.retain(|(recoveries, _)| *recoveries == self.recoveries);
        idle.pop().map(|(_, connection)| connection)
    }

    /// Keeps a connection for other operations.
    pub(super) fn reuse(self, connection: C) {
        self.pool.idle().push((self.recoveries, connection));
    }
}
