//! The connections of a store that are kept for other operations.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::Arc,
    thread::{self, ThreadId},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use super::{
    fault::{StoreFault, Unreachable},
    health::Backend,
};

/// One connection per thread, which all operations of the thread share. A connection's task runs on the thread that
/// opened it, so an operation never waits for another thread.
pub(super) struct ConnectionCache<C>(Mutex<Kept<C>>);

/// With how often the backend had recovered when they were made.
type Kept<C> = HashMap<ThreadId, (u32, Arc<OnceCell<C>>)>;

impl<C> Default for ConnectionCache<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<C: Clone> ConnectionCache<C> {
    /// Runs one operation of `backend` within its time limit, on this thread's connection. If the connection breaks,
    /// the operation is repeated once, provided that nothing of it was sent or that it is `read_only`.
    pub(super) async fn run<T>(
        &self,
        backend: &Arc<impl Backend>,
        within: Duration,
        read_only: bool,
        connect: impl AsyncFn() -> Result<C, Unreachable>,
        operation: impl AsyncFn(C) -> Result<T, StoreFault>,
    ) -> Result<T, StoreFault> {
        let used = RefCell::new(None);
        let attempt = async || {
            let connection = self.connection(backend.health().recoveries());
            used.replace(Some(connection.clone()));
            // Boxed, because the future of a connection is large, and each layer around this one copies it.
            let connection = connection.get_or_try_init(|| Box::pin(connect())).await?;
            operation(connection.clone()).await
        };
        let attempts = async {
            match attempt().await {
                Err(StoreFault::Unsent) => {}
                Err(StoreFault::Broken(_)) if read_only => {}
                done => return done,
            }
            self.forget(used.take());
            attempt().await
        };
        let done = backend.run(within, attempts).await;
        // Only a connection that answered is used again.
        if !matches!(
            done,
            Ok(_) | Err(StoreFault::Refused(_) | StoreFault::Locked)
        ) {
            self.forget(used.take());
        }
        done
    }

    /// This thread's connection, which may not be open yet. A connection from before the backend was down is replaced.
    fn connection(&self, recoveries: u32) -> Arc<OnceCell<C>> {
        let mut kept = self.0.lock();
        let entry = kept.entry(thread::current().id()).or_default();
        if entry.0 != recoveries {
            *entry = (recoveries, Arc::default());
        }
        entry.1.clone()
    }

    /// Drops an open connection, unless another has already replaced it.
    fn forget(&self, connection: Option<Arc<OnceCell<C>>>) {
        if let Some(open) = connection.filter(|connection| connection.initialized()) {
            self.0
                .lock()
                .retain(|_, (_, kept)| !Arc::ptr_eq(&open, kept));
        }
    }
}

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

    /// Closes idle connections from before the latest of the store's `recoveries`.
    pub(super) fn close_older(&self, recoveries: u32) {
        let mut idle = self.idle.lock();
        idle.retain(|(made, _)| *made == recoveries);
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
}

impl<C> Permit<C> {
    pub(super) fn idle_connection(&self) -> Option<C> {
        let mut idle = self.pool.idle.lock();
        idle.retain(|(recoveries, _)| *recoveries == self.recoveries);
        idle.pop().map(|(_, connection)| connection)
    }

    /// Keeps a connection for other operations.
    pub(super) fn reuse(self, connection: C) {
        self.pool.idle.lock().push((self.recoveries, connection));
    }
}
