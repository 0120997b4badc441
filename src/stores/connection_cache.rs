//! One connection per thread, which all operations of the thread share.
//!
//! A connection's task runs on the thread that opened it, so an operation never waits for another thread.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
    time::Duration,
};

use tokio::sync::OnceCell;

use super::{
    backend::Backend,
    fault::{StoreFault, Unreachable},
};

/// The connections of one backend.
pub(super) struct ConnectionCache<C>(Mutex<HashMap<ThreadId, Entry<C>>>);

struct Entry<C> {
    /// How often the backend had recovered when the connection was made.
    recoveries: u32,
    connection: Arc<OnceCell<C>>,
}

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
        let new = || Entry {
            recoveries,
            connection: Arc::default(),
        };
        let mut entries = self.entries();
        let entry = entries.entry(thread::current().id()).or_insert_with(new);
        if entry.recoveries != recoveries {
            *entry = new();
        }
        entry.connection.clone()
    }

    /// Drops an open connection of this thread, unless another has already replaced it.
    fn forget(&self, connection: Option<Arc<OnceCell<C>>>) {
        let open = connection.filter(|connection| connection.initialized());
        let is_it = |entry: &Entry<C>| {
            open.as_ref()
                .is_some_and(|open| Arc::ptr_eq(open, &entry.connection))
        };
        let thread = thread::current().id();
        let mut entries = self.entries();
        if entries.get(&thread).is_some_and(is_it) {
            entries.remove(&thread);
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<ThreadId, Entry<C>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
