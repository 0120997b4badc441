//! Quotas in a SQLite file that only this process opens, and the thread that writes it.

use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
    thread::JoinHandle,
};

use futures_util::future::{LocalBoxFuture, ready};
use policies::{BoxFuture, Counter, Fault, Hold, QuotaStore, Reservation, StoreName, Window};

use super::{
    database::{Database, Row},
    ledger::{Commit, Entry, Pending},
    shared::{Shared, Work},
};
use crate::stores::{
    fault::{OpenError, StoreFault},
    health::HealthCheck,
    kind::OpenOptions,
    retention::CleanupSchedule,
};

pub(super) struct Counters {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    /// Held while the store is open.
    _lock: File,
}

impl Counters {
    /// Opens or creates the file.
    pub(super) fn open(path: &Path, options: &OpenOptions<'_>) -> Result<Self, OpenError> {
        let io = |path: &Path, source| OpenError::Io {
            path: path.display().to_string(),
            source,
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| io(folder, error))?;
        }
        // The real path, so that two names of one file have one lock.
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
        let clock = &options.context.clock;
        let schedule = CleanupSchedule::new(clock.clone());
        let shared = Arc::new(Shared::new(options.health(), clock.clone()));
        match database.check_writing() {
            Ok(()) => shared.health.record_success(),
            Err(error) => _ = shared.health.mark_down(&error),
        }
        let writer = std::thread::Builder::new()
            .name("quota-writer".to_owned())
            .spawn({
                let shared = shared.clone();
                move || write_changes(&shared, &path, database, schedule)
            })
            .map_err(|error| io(lock_path, error))?;
        Ok(Self {
            shared,
            writer: Some(writer),
            _lock: lock,
        })
    }

    fn require_up(&self) -> Result<(), Fault> {
        let health = &self.shared.health;
        let is_up = health.is_up().then_some(());
        is_up.ok_or_else(|| health.fault(StoreFault::Down))
    }
}

impl HealthCheck for Counters {
    fn is_healthy(&self) -> bool {
        self.shared.health.is_ready()
    }

    fn rename(&self, store: &StoreName) {
        self.shared.health.rename(store);
    }

    fn check(&self) -> LocalBoxFuture<'_, Result<(), StoreFault>> {
        let is_up = self.shared.health.is_up().then_some(());
        Box::pin(ready(is_up.ok_or(StoreFault::Down)))
    }
}

impl QuotaStore for Counters {
    fn reserve(&self, counter: Counter, window: Window, limit: u64) -> BoxFuture<'_, Reservation> {
        Box::pin(async move {
            self.require_up()?;
            let counter = Arc::new(counter);
            let reserve = |entry: &mut Entry, pending: &mut Pending| {
                let row = entry.row(window);
                if row.used >= limit {
                    return Err(row.window);
                }
                row.used += 1;
                Ok((*row, pending.add(&counter, entry)))
            };
            Ok(match self.shared.with_counter(&counter, reserve).await? {
                Err(window) => Reservation::Exhausted { window },
                Ok((Row { window, used }, commit)) => Reservation::Granted {
                    hold: Box::new(ReservedUnit {
                        shared: self.shared.clone(),
                        counter,
                        window,
                        commit,
                    }),
                    used,
                    window,
                },
            })
        })
    }

    fn used(&self, counter: Counter, window: Window) -> BoxFuture<'_, (u64, Window)> {
        Box::pin(async move {
            self.require_up()?;
            let read = |entry: &mut Entry, _: &mut Pending| *entry.row(window);
            let row = self.shared.with_counter(&Arc::new(counter), read).await?;
            Ok((row.used, row.window))
        })
    }

    fn give_back(&self, counter: Counter, window: Window) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.require_up()?;
            let counter = Arc::new(counter);
            let clear = |entry: &mut Entry, pending: &mut Pending| {
                entry.row(window).used = 0;
                pending.add(&counter, entry)
            };
            let commit = self.shared.with_counter(&counter, clear).await?;
            self.shared.wait(&commit).await
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

struct ReservedUnit {
    shared: Arc<Shared>,
    counter: Arc<Counter>,
    window: Window,
    commit: Commit,
}

impl Hold for ReservedUnit {
    fn commit(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(self.shared.wait(&self.commit))
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let give_back = |entry: &mut Entry, pending: &mut Pending| {
                let row = entry.row(self.window);
                if row.window.start != self.window.start {
                    return None;
                }
                row.used = row.used.saturating_sub(1);
                Some(pending.add(&self.counter, entry))
            };
            // Even if the store is down, so that the unit does not stay counted in memory.
            match self.shared.with_counter(&self.counter, give_back).await? {
                Some(commit) => self.shared.wait(&commit).await,
                None => Ok(()),
            }
        })
    }
}

/// Runs until the store is closed and everything is written. After an error, the file is opened again, so that no restart
/// is needed after a disk was full or read-only.
///
/// The store is down if a commit does not reach the disk, and up again when a commit does so in time. If only one counter
/// cannot be read, only its requests fail: a commit without changes then shows whether the store works.
fn write_changes(shared: &Shared, path: &Path, database: Database, mut schedule: CleanupSchedule) {
    let mut database = Some(database);
    while let Some(work) = shared.next_work(schedule.due_in()) {
        let Work { loads, batch } = work;
        let began = shared.now();
        let mut must_check = !shared.health.is_up();
        for load in loads {
            let read = attempt(&mut database, path, |database| database.read(&load.counter));
            let reply = match read {
                Ok(row) => {
                    shared.lock().loaded(load.counter, row);
                    Ok(())
                }
                Err(error) => {
                    must_check = true;
                    Err(StoreFault::Refused(error.to_string()))
                }
            };
            // The request may have given up.
            let _ = load.reply.send(reply);
            shared.health.record_answer();
        }
        let mut written = Ok(());
        let mut closed = false;
        if let Some(batch) = batch {
            written = attempt(&mut database, path, |database| {
                database.write(&batch.changes)
            });
            let result = written.as_ref().copied();
            let result = result.map_err(|error| StoreFault::Refused(error.to_string()));
            let mut ledger = shared.lock();
            if result.is_ok() {
                ledger.written(&batch);
            } else {
                ledger.put_back(&batch);
                closed = ledger.is_closed;
            }
            drop(ledger);
            // Only the writer sets it, once.
            let _ = batch.commit.set(result);
            shared.health.record_answer();
        } else if must_check {
            written = attempt(&mut database, path, |database| database.check_writing());
        }
        if written.is_ok() && schedule.due_in().is_zero() {
            let deleted = attempt(&mut database, path, |database| {
                database.delete_old(schedule.after(), schedule.now())
            });
            let last = deleted.unwrap_or_else(|error| {
                tracing::warn!(store = %shared.health.store(), %error, "old counters were not deleted");
                None
            });
            schedule.schedule_next(last);
        }
        match written {
            Err(error) => _ = shared.health.mark_down(&error),
            // Otherwise the disk is slower than requests wait, so the store stays down.
            Ok(()) if shared.now().saturating_sub(began) < shared.health.timeout() => {
                shared.health.mark_up();
            }
            Ok(()) => {}
        }
        if closed {
            return;
        }
    }
}

fn attempt<T>(
    database: &mut Option<Database>,
    path: &Path,
    operation: impl FnOnce(&mut Database) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let mut open = match database.take() {
        Some(open) => open,
        None => Database::open(path)?,
    };
    let result = operation(&mut open);
    if result.is_ok() {
        *database = Some(open);
    }
    result
}
