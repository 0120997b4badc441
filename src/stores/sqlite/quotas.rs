//! Quotas in a SQLite file that only this process opens, and the thread that writes it.

use std::{
    fs, mem,
    path::Path,
    sync::{Arc, OnceLock},
    thread::JoinHandle,
};

use futures_util::future::{LocalBoxFuture, ready};
use parking_lot::Mutex;
use policies::{BoxFuture, Counter, Hold, QuotaStore, Reservation, StoreName, Window};

use super::{
    access::{Purpose, find_problem, open_fault},
    database::{Database, DatabaseError, Row},
    file::{CHECK_PERIOD, FileFault, OwnedFile},
    ledger::{Commit, Entry, Pending},
    reader::{ReadSlot, Reader},
    records::{Deliveries, Following},
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
    /// `None` after an error, until the writer opens it again.
    database: Arc<Mutex<Option<Database>>>,
    reader: Reader,
    /// Of the records, once it was read.
    secret: OnceLock<[u8; 32]>,
    following: Following,
    deliveries: Deliveries,
    /// Locked while the store is open.
    file: Arc<OwnedFile>,
}

impl Counters {
    /// Opens or creates the file.
    pub(super) fn open(path: &Path, options: &OpenOptions<'_>) -> Result<Self, OpenError> {
        let io = |path: &Path, source| OpenError::Io {
            path: path.display().to_string(),
            source,
        };
        if let Some(problem) = find_problem(path, Purpose::Count) {
            return Err(OpenError::File(problem));
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| io(folder, error))?;
        }
        let file = Arc::new(OwnedFile::lock(path)?);
        let reads = ReadSlot::default();
        let database = Database::open(&file, &reads).map_err(|error| open_error(path, error))?;
        let clock = &options.context.clock;
        let schedule = CleanupSchedule::new(clock.clone());
        let shared = Arc::new(Shared::new(options.health(), clock.clone()));
        match database.check_writing() {
            Ok(()) => shared.health.record_success(),
            Err(error) => _ = shared.health.mark_down(&error),
        }
        let reader = Reader::start(reads.clone(), file.clone(), clock.clone(), options.timeout)
            .map_err(|error| io(path, error))?;
        let database = Arc::new(Mutex::new(Some(database)));
        let writer = std::thread::Builder::new()
            .name("quota-writer".to_owned())
            .spawn({
                let (shared, file, database) = (shared.clone(), file.clone(), database.clone());
                move || write_changes(&shared, &file, &reads, &database, schedule)
            })
            .map_err(|error| io(path, error))?;
        Ok(Self {
            shared,
            writer: Some(writer),
            database,
            reader,
            secret: OnceLock::new(),
            following: Following::default(),
            deliveries: Deliveries::default(),
            file,
        })
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn reader(&self) -> &Reader {
        &self.reader
    }

    pub(super) fn known_secret(&self) -> &OnceLock<[u8; 32]> {
        &self.secret
    }

    pub(super) fn following(&self) -> &Following {
        &self.following
    }

    pub(super) fn deliveries(&self) -> &Deliveries {
        &self.deliveries
    }
}

impl HealthCheck for Counters {
    fn is_healthy(&self) -> bool {
        self.shared.health.is_ready()
    }

    fn rename(&self, store: &StoreName) {
        self.shared.health.rename(store);
    }

    fn must_reopen(&self) -> bool {
        let is_replaced = self.file.is_replaced();
        if is_replaced && let Some(database) = self.database.lock().take() {
            // The writer may not have noticed it yet.
            leave(database);
        }
        is_replaced
    }

    fn check(&self) -> LocalBoxFuture<'_, Result<(), StoreFault>> {
        let is_up = self.shared.health.is_up().then_some(());
        Box::pin(ready(is_up.ok_or(StoreFault::Down)))
    }
}

impl QuotaStore for Counters {
    fn reserve(&self, counter: Counter, window: Window, limit: u64) -> BoxFuture<'_, Reservation> {
        Box::pin(async move {
            self.shared.require_up()?;
            let counter = Arc::new(counter);
            let reserve = |entry: &mut Entry, pending: &mut Pending| {
                let before = entry.current_row().window;
                let row = entry.move_to(window);
                if row.used >= limit {
                    let window = row.window;
                    if window != before {
                        // On the disk as well, where a row is kept as long as its window requires.
                        let _ = pending.add(&counter, entry);
                    }
                    return Err(window);
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
            self.shared.require_up()?;
            let read = |entry: &mut Entry, _: &mut Pending| entry.row_in(window);
            let row = self.shared.with_counter(&Arc::new(counter), read).await?;
            Ok((row.used, row.window))
        })
    }

    fn give_back(&self, counter: Counter, window: Window) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.shared.require_up()?;
            let counter = Arc::new(counter);
            let clear = |entry: &mut Entry, pending: &mut Pending| {
                entry.move_to(window).used = 0;
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
                let row = entry.current_row();
                // Otherwise the unit may no longer count.
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

fn open_error(path: &Path, error: DatabaseError) -> OpenError {
    let source = match error {
        DatabaseError::Sqlite(error) => match open_fault(path, &error) {
            StoreFault::File(problem) => return OpenError::File(problem),
            _ => error.into(),
        },
        DatabaseError::File(fault) => fault.into(),
    };
    OpenError::Database {
        path: path.display().to_string(),
        source,
    }
}

/// Runs until the store is closed and everything is written. After an error, the file is opened again, so that no restart
/// is needed after a disk was full or read-only.
///
/// The store is down if a commit does not reach the disk, and up again when a commit does so in time. If only one counter
/// cannot be read, only its requests fail: a commit without changes then shows whether the store works. A commit counts
/// only if the path still leads to the files that it is in. So no token is issued that another file will not count.
fn write_changes(
    shared: &Shared,
    file: &OwnedFile,
    reads: &ReadSlot,
    database: &Mutex<Option<Database>>,
    mut schedule: CleanupSchedule,
) {
    let mut is_taken_over = false;
    let mut next_check = shared.now() + CHECK_PERIOD;
    while let Some(work) = shared.next_work(schedule.due_in().min(CHECK_PERIOD)) {
        let Work { loads, batch } = work;
        let began = shared.now();
        let mut must_check = !shared.health.is_up();
        for load in loads {
            let read = attempt(database, file, reads, |database| {
                Ok(database.read(&load.counter)?)
            });
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
        if let Some(mut batch) = batch {
            let records = mem::take(&mut batch.records);
            let take_over = !is_taken_over && !records.is_empty();
            written = attempt(database, file, reads, |database| {
                database.write(&batch.changes, records, take_over)?;
                database.check_files(file)
            });
            is_taken_over |= take_over && written.is_ok();
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
            written = attempt(database, file, reads, |database| {
                database.check_writing()?;
                database.check_files(file)
            });
        } else if began >= next_check {
            written = attempt(database, file, reads, |database| database.check_files(file));
            next_check = began + CHECK_PERIOD;
        }
        if written.is_ok() && schedule.due_in().is_zero() {
            let deleted = attempt(database, file, reads, |database| {
                Ok(database.delete_old(schedule.after(), schedule.now())?)
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
    database: &Mutex<Option<Database>>,
    file: &OwnedFile,
    reads: &ReadSlot,
    operation: impl FnOnce(&mut Database) -> Result<T, DatabaseError>,
) -> Result<T, DatabaseError> {
    let mut database = database.lock();
    let mut open = match database.take() {
        Some(open) => open,
        None => Database::open(file, reads)?,
    };
    let result = operation(&mut open);
    match &result {
        Ok(_) => *database = Some(open),
        Err(DatabaseError::File(FileFault::Gone(_) | FileFault::Replaced(_))) => leave(open),
        // Closing it writes the log into the file.
        Err(_) => {}
    }
    result
}

/// Closes a database whose path names another file, or none. The other file would use the same log.
fn leave(database: Database) {
    if let Err(error) = database.empty_log() {
        tracing::warn!(%error, "the log of a database that was moved was not emptied");
    }
}
