//! The thread that reads and writes the file.

use std::path::Path;

use super::{
    cleanup::Cleanup,
    database::Database,
    ledger::Batch,
    shared::{Shared, Work},
};

/// Works until the store is closed and everything is written. A file that fails is opened anew before the
/// next try, so that a disk that was full or read-only for a while is no reason to restart.
pub(super) fn run(shared: &Shared, path: &Path, database: Database, mut cleanup: Cleanup) {
    let mut database = Some(database);
    while let Some(work) = shared.next_work(cleanup.due_in()) {
        let Work { loads, batch } = work;
        let mut failure = None;
        for load in loads {
            let read = attempt(&mut database, path, |database| database.read(&load.counter));
            let reply = match read {
                Ok(row) => {
                    shared.lock().loaded(&load.counter, row);
                    Ok(())
                }
                Err(error) => Err(failure.insert(error.to_string()).clone()),
            };
            // Whoever asked may have given up.
            let _ = load.reply.send(reply);
        }
        let mut closed = false;
        if let Some(Batch { changes, commit }) = batch {
            let written = attempt(&mut database, path, |database| database.write(&changes));
            let result = written.map_err(|error| failure.insert(error.to_string()).clone());
            if result.is_ok() {
                shared.written(changes);
            } else {
                closed = shared.put_back(changes);
            }
            commit.finish(result);
        } else if !shared.is_healthy() {
            let probed = attempt(&mut database, path, |database| database.probe());
            failure = failure.or(probed.err().map(|error| error.to_string()));
        }
        if failure.is_none() && cleanup.due_in().is_zero() {
            let cleaned = attempt(&mut database, path, |database| cleanup.go_on(database));
            if let Err(error) = cleaned {
                tracing::warn!(store = %shared.name, %error, "counters of past windows were not deleted");
                cleanup.put_off();
            }
        }
        if let Some(error) = &failure {
            tracing::error!(store = %shared.name, error, "the quota's file fails");
        }
        shared.set_healthy(failure.is_none());
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
