//! Quotas in a file of SQLite's.
//!
//! The process has the file to itself (a lock beside it sees to that), so the counters in use live in
//! memory and a reservation is decided there and then, without waiting for the disk. What it counts is
//! written by one thread, many reservations in one commit, while Imgwire is asked; a token leaves only when
//! the commit that counts it has reached the disk.
//!
//! - [`ledger`]: the counters in memory, and what is to be written.
//! - [`commit`]: the commits to come, and the wait for them.
//! - [`shared`]: the ledger's lock, and how the requests and the writer wake each other.
//! - [`writer`]: the thread that writes.
//! - [`database`]: the SQL.
//! - [`cleanup`]: the end of counters whose windows are long over.
//! - [`members`]: memberships, looked up in any file.

mod cleanup;
mod commit;
mod database;
mod ledger;
mod members;
mod shared;
mod writer;

use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use futures_util::{TryFutureExt as _, future::LocalBoxFuture};
use policies::{
    Clock, Counter, Fault, Hold, QuotaStore, Reservation, Reserving, Settling, StoreName, Window,
};

pub(super) use self::members::SqliteMembers;
use self::{
    cleanup::Cleanup,
    commit::Commit,
    database::Database,
    ledger::{Ledger, Slot},
    shared::{Pin, Shared},
};
use super::fault::StoreFault;

/// Why a store's file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file, or what stands beside it, cannot be made or read.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("{0} is in use by another process: a file of counters has one gate at a time")]
    InUse(String),
    /// SQLite refuses it.
    #[error("{path}: {source}")]
    Database {
        /// Which file.
        path: String,
        /// Why.
        source: rusqlite::Error,
    },
}

/// A store in a file of SQLite's.
pub struct SqliteStore {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    /// Held as long as the store lives.
    _lock: File,
}

impl SqliteStore {
    /// Opens the file at `path`, which is made if it is not there. `timeout` bounds how long a request waits
    /// for the disk; `clock` tells how long counts have been gathered for a commit.
    ///
    /// # Errors
    ///
    /// What keeps it from being opened.
    pub fn open(
        name: StoreName,
        path: &Path,
        timeout: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let io = |path: &Path, source| OpenError::Io {
            path: path.display().to_string(),
            source,
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| io(folder, error))?;
        }
        // Its real path, so that two names of one file are one file.
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(_) => path.to_owned(),
        };
        let mut lock_path = path.clone().into_os_string();
        lock_path.push(".lock");
        let lock_path = Path::new(&lock_path);
        let lock = File::create(lock_path).map_err(|error| io(lock_path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(OpenError::InUse(path.display().to_string()));
            }
            Err(fs::TryLockError::Error(error)) => return Err(io(lock_path, error)),
        }
        let database = Database::open(&path).map_err(|source| OpenError::Database {
            path: path.display().to_string(),
            source,
        })?;
        let cleanup = Cleanup::new(clock.clone());
        let shared = Arc::new(Shared::new(name, timeout, clock));
        match database.try_to_write() {
            Ok(()) => shared.health.works(),
            Err(error) => _ = shared.health.goes_down(&error),
        }
        let writer = std::thread::Builder::new()
            .name("quota-writer".to_owned())
            .spawn({
                let shared = shared.clone();
                move || writer::run(&shared, &path, database, cleanup)
            })
            .map_err(|error| io(lock_path, error))?;
        Ok(Self {
            shared,
            writer: Some(writer),
            _lock: lock,
        })
    }

    /// Hands a counter to `then` under the lock, loading it first if it is not in memory.
    async fn with_counter<T>(
        &self,
        counter: Counter,
        then: impl Fn(&mut Ledger, Slot) -> T,
    ) -> Result<(T, Pin), Fault> {
        if !self.shared.health.is_up() {
            return Err(fault(&self.shared)(StoreFault::Down.to_string()));
        }
        let (pin, result) = Pin::with(&self.shared, counter, &then);
        let output = match result {
            Ok(output) => output,
            Err(loading) => {
                let loaded = match self.shared.in_time(loading).await {
                    Ok(Ok(loaded)) => loaded,
                    Ok(Err(_)) => Err("the store is closed".to_owned()),
                    Err(late) => Err(late),
                };
                loaded.map_err(fault(&self.shared))?;
                then(&mut self.shared.lock(), pin.slot())
            }
        };
        Ok((output, pin))
    }
}

impl super::Store for SqliteStore {
    fn is_healthy(&self) -> bool {
        self.shared.health.is_ready()
    }

    fn try_it(&self) -> super::Trying<'_> {
        let is_up = self.shared.health.is_up().then_some(());
        let tried = is_up.ok_or_else(|| StoreFault::Down.to_string());
        Box::pin(std::future::ready(tried))
    }
}

impl QuotaStore for SqliteStore {
    fn reserve(&self, counter: Counter, window: Window, limit: u64) -> Reserving<'_> {
        Box::pin(async move {
            let reserve = |ledger: &mut Ledger, slot: Slot| {
                let row = ledger.row(slot, window);
                let granted = row.used < limit;
                row.used += u64::from(granted);
                let row = *row;
                (row, granted.then(|| ledger.changed(slot)))
            };
            let ((row, change), pin) = self.with_counter(counter, reserve).await?;
            let Some(change) = change else {
                return Ok(Reservation::Exhausted { window: row.window });
            };
            let hold = Box::new(Unit {
                pin,
                window: row.window,
                commit: self.shared.announce(change),
            });
            Ok(Reservation::Granted {
                hold,
                used: row.used,
                window: row.window,
            })
        })
    }

    fn used(
        &self,
        counter: Counter,
        window: Window,
    ) -> LocalBoxFuture<'_, Result<(u64, Window), Fault>> {
        Box::pin(async move {
            let look = |ledger: &mut Ledger, slot: Slot| *ledger.row(slot, window);
            let (row, _) = self.with_counter(counter, look).await?;
            Ok((row.used, row.window))
        })
    }

    fn give_back(&self, counter: Counter, window: Window) -> LocalBoxFuture<'_, Result<(), Fault>> {
        Box::pin(self.clear(counter, window))
    }
}

impl SqliteStore {
    /// Sets a counter to nothing, and waits until that has reached the disk.
    async fn clear(&self, counter: Counter, window: Window) -> Result<(), Fault> {
        let clear = |ledger: &mut Ledger, slot: Slot| {
            ledger.row(slot, window).used = 0;
            ledger.changed(slot)
        };
        let (change, _pin) = self.with_counter(counter, clear).await?;
        let commit = self.shared.announce(change);
        let committed = commit.wait(&self.shared).await;
        committed.map_err(fault(&self.shared))
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing more to write.
            let _ = writer.join();
        }
    }
}

/// A unit that is counted for a request.
struct Unit {
    pin: Pin,
    window: Window,
    commit: Arc<Commit>,
}

impl Hold for Unit {
    fn commit(&mut self) -> Settling<'_> {
        let committed = self.commit.wait(self.pin.shared());
        Box::pin(committed.map_err(fault(self.pin.shared())))
    }

    fn release(self: Box<Self>) -> Settling<'static> {
        Box::pin(async move {
            let shared = self.pin.shared();
            let change = shared.lock().give_back(self.pin.slot(), self.window);
            let Some(change) = change else { return Ok(()) };
            let commit = shared.announce(change);
            let committed = commit.wait(shared).await;
            committed.map_err(fault(shared))
        })
    }
}

/// What is counted in the file at `path`, which another process may have open.
///
/// # Errors
///
/// What SQLite says.
pub(super) fn look_up(
    path: &Path,
    counter: &Counter,
    window: Window,
) -> rusqlite::Result<(u64, Window)> {
    let row = Database::open_to_read(path)?.read(counter)?;
    // What was counted in an earlier window is over.
    Ok(match row.filter(|row| row.window.start >= window.start) {
        Some(row) => (row.used, row.window),
        None => (0, window),
    })
}

/// Whether the file at `path`, which another process may have open, is one of counters.
///
/// # Errors
///
/// What SQLite says.
pub(super) fn try_to_read(path: &Path) -> rusqlite::Result<()> {
    Database::open_to_read(path)?.try_to_read()
}

/// Why this store could not tell.
fn fault(shared: &Shared) -> impl Fn(String) -> Fault {
    |message| Fault::Store {
        store: shared.health.store().clone(),
        source: message.into(),
    }
}
