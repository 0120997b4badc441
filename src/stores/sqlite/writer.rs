//! The thread that reads and writes the file.

use std::path::Path;

use super::{
    database::Database,
    ledger::Batch,
    shared::{Shared, Work},
};
use crate::stores::retention::Cleaning;

/// Runs until the store is closed and everything is written. A file that fails is opened again before the next attempt,
/// so that no restart is needed after a disk was full or read-only.
///
/// The store is down if a commit does not reach the disk, and up again when one does in time. A counter that cannot be
/// read is a fault only of its requests: an empty commit then shows whether the whole store is affected.
pub(super) fn run(shared: &Shared, path: &Path, database: Database, mut cleaning: Cleaning) {
    let mut database = Some(database);
    while let Some(work) = shared.next_work(cleaning.due_in()) {
        let Work { loads, batch } = work;
        let began = shared.now();
        let mut must_try = !shared.health.is_up();
        for load in loads {
            let read = attempt(&mut database, path, |database| database.read(&load.counter));
            let reply = match read {
                Ok(row) => {
                    shared.lock().loaded(&load.counter, row);
                    Ok(())
                }
                Err(error) => {
                    must_try = true;
                    Err(error.to_string())
                }
            };
            // The request may have given up.
            let _ = load.reply.send(reply);
            shared.health.answered();
        }
        let mut written = Ok(());
        let mut closed = false;
        if let Some(Batch { changes, commit }) = batch {
            written = attempt(&mut database, path, |database| database.write(&changes));
            let result = written.as_ref().copied().map_err(ToString::to_string);
            if result.is_ok() {
                shared.written(changes);
            } else {
                closed = shared.put_back(changes);
            }
            commit.finish(result);
            shared.health.answered();
        } else if must_try {
            written = attempt(&mut database, path, |database| database.try_to_write());
        }
        if written.is_ok() && cleaning.due_in().is_zero() {
            let deleted = attempt(&mut database, path, |database| {
                database.delete_old(cleaning.after(), cleaning.now())
            });
            let last = deleted.unwrap_or_else(|error| {
                tracing::warn!(store = %shared.health.store(), %error, "counters of past windows were not deleted");
                None
            });
            cleaning.did_page(last);
        }
        match written {
            Err(error) => _ = shared.health.goes_down(&error),
            // A disk that is slower than requests wait is unusable, too.
            Ok(()) if shared.now().saturating_sub(began) < shared.health.timeout() => {
                shared.health.comes_back();
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
