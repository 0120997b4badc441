//! Quotas in a SQLite file that only this process opens.

use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
    thread::JoinHandle,
};

use futures_util::{TryFutureExt as _, future::LocalBoxFuture};
use policies::{BoxFuture, Counter, Fault, Hold, QuotaStore, Reservation, Window};

use super::{
    commit::Commit,
    database::Database,
    ledger::{Ledger, Slot},
    shared::{Pin, Shared},
    writer,
};
use crate::stores::{
    backend::Probe,
    fault::{OpenError, StoreFault},
    kind::Opening,
    retention::Cleaning,
};

pub(super) struct Counters {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    /// Held while the store is open.
    _lock: File,
}

impl Counters {
    /// Opens or creates the file at `path`. The timeout limits how long a request waits for the disk, and the clock
    /// measures how long counts have been gathered for a commit.
    pub(super) fn open(path: &Path, opening: &Opening<'_>) -> Result<Self, OpenError> {
        let io = |path: &Path, source| OpenError::Io {
            path: path.display().to_string(),
            source,
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| io(folder, error))?;
        }
        // The real path, so that two names of one file are one file.
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
            source: source.into(),
        })?;
        let cleaning = Cleaning::new(opening.surroundings.clock.clone());
        let shared = Arc::new(Shared::new(
            opening.health(),
            opening.surroundings.clock.clone(),
        ));
        match database.try_to_write() {
            Ok(()) => shared.health.works(),
            Err(error) => _ = shared.health.goes_down(&error),
        }
        let writer = std::thread::Builder::new()
            .name("quota-writer".to_owned())
            .spawn({
                let shared = shared.clone();
                move || writer::run(&shared, &path, database, cleaning)
            })
            .map_err(|error| io(lock_path, error))?;
        Ok(Self {
            shared,
            writer: Some(writer),
            _lock: lock,
        })
    }

    /// Passes a counter to `then` under the lock, and loads it first if it is not in memory.
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

impl Probe for Counters {
    fn is_healthy(&self) -> bool {
        self.shared.health.is_ready()
    }

    fn try_it(&self) -> LocalBoxFuture<'_, Result<(), String>> {
        let is_up = self.shared.health.is_up().then_some(());
        let tried = is_up.ok_or_else(|| StoreFault::Down.to_string());
        Box::pin(std::future::ready(tried))
    }
}

impl QuotaStore for Counters {
    fn reserve(&self, counter: Counter, window: Window, limit: u64) -> BoxFuture<'_, Reservation> {
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
        Box::pin(async move {
            let clear = |ledger: &mut Ledger, slot: Slot| {
                ledger.row(slot, window).used = 0;
                ledger.changed(slot)
            };
            let (change, _pin) = self.with_counter(counter, clear).await?;
            let commit = self.shared.announce(change);
            let committed = commit.wait(&self.shared).await;
            committed.map_err(fault(&self.shared))
        })
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing more to write.
            let _ = writer.join();
        }
    }
}

struct Unit {
    pin: Pin,
    window: Window,
    commit: Arc<Commit>,
}

impl Hold for Unit {
    fn commit(&mut self) -> BoxFuture<'_, ()> {
        let committed = self.commit.wait(self.pin.shared());
        Box::pin(committed.map_err(fault(self.pin.shared())))
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, ()> {
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

fn fault(shared: &Shared) -> impl Fn(String) -> Fault {
    |message| Fault::Store {
        store: shared.health.store().clone(),
        source: message.into(),
    }
}
