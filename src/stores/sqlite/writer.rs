//! The thread that reads and writes the file.

use std::path::Path;

use super::super::{fault::StoreFault, retention::CleanupSchedule};
use super::{
    database::Database,
    shared::{Shared, Work},
};

/// Runs until the store is closed and everything is written. After an error, the file is opened again, so that no restart
/// is needed after a disk was full or read-only.
///
/// The store is down if a commit does not reach the disk, and up again when a commit does so in time. If only one counter
/// cannot be read, only its requests fail: a commit without changes then shows whether the store works.
pub(super) fn run(shared: &Shared, path: &Path, database: Database, mut schedule: CleanupSchedule) {
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
