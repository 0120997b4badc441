//! The file: its settings, its commits, and the SQL of the counters.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use policies::{Counter, Window};
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension as _, TransactionBehavior, params,
};

use super::{
    connection::{LOCK_TIMEOUT, keep_statements},
    file::{FileFault, OwnedFile, beside},
    reader::ReadSlot,
    records::{KeyWriter, RecordChange, RecordWriter, create_tables, take_over_records},
};
use crate::{
    outbound::reason,
    stores::{
        file_id::FileId,
        retention::{PAGE, RETENTION, RowName},
    },
};

/// The table of the counters.
pub(super) const COUNTERS: &str = "quota_counters";

const CREATE: &str = "CREATE TABLE IF NOT EXISTS quota_counters (
    policy TEXT NOT NULL,
    key TEXT NOT NULL,
    window_start INTEGER NOT NULL, -- seconds since 1970
    window_end INTEGER NOT NULL,
    used INTEGER NOT NULL,
    PRIMARY KEY (policy, key)
) STRICT, WITHOUT ROWID";

#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) window: Window,
    pub(super) used: u64,
}

impl Row {
    /// A counter that was never used.
    pub(super) const UNUSED: Self = Self {
        window: Window {
            start: Timestamp::MIN,
            end: Timestamp::MIN,
        },
        used: 0,
    };
}

pub(super) struct Change {
    pub(super) counter: Arc<Counter>,
    pub(super) row: Row,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum DatabaseError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    File(#[from] FileFault),
}

/// A file that this process owns.
pub(super) struct Database {
    connection: Connection,
    reads: ReadSlot,
    keys: KeyWriter,
    /// The files beside it, as they were when it was opened.
    beside: [(PathBuf, Option<FileId>); 2],
    /// Of the file, in bytes.
    size: u64,
}

impl Database {
    /// Reads in `reads` are possible until this is dropped.
    pub(super) fn open(file: &OwnedFile, reads: &ReadSlot) -> Result<Self, DatabaseError> {
        file.check()?;
        let path = file.real_path().map_err(|error| FileFault::Unreadable {
            path: file.shown(),
            reason: reason(&error, ""),
        })?;
        let connection = Connection::open(&path)?;
        connection.busy_timeout(LOCK_TIMEOUT)?;
        // In WAL mode, FULL means that a commit returns only when it is on disk.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // The log restarts after each checkpoint, so this keeps it at 1 MiB. Overwriting costs a third less than growing
        // the file, which allocates blocks and records a new size.
        connection.pragma_update(None, "wal_autocheckpoint", 256)?;
        keep_statements(&connection)?;
        connection.execute_batch(CREATE)?;
        create_tables(&connection)?;
        let keys = KeyWriter::open(&connection, reads.new_keys().clone())?;
        let beside = beside(&path).map(|path| {
            let id = FileId::at(&path);
            (path, id)
        });
        let size = file.check()?;
        reads.allow(&path);
        Ok(Self {
            connection,
            reads: reads.clone(),
            keys,
            beside,
            size,
        })
    }

    /// Fails if what was written is in files that the path no longer leads to.
    pub(super) fn check_files(&mut self, file: &OwnedFile) -> Result<(), DatabaseError> {
        let size = file.check()?;
        file.check_header()?;
        for (path, id) in &self.beside {
            if FileId::at(path) != *id {
                return Err(FileFault::BesideGone(path.display().to_string()).into());
            }
        }
        if size < self.size && self.lacks_pages(size)? {
            return Err(file.mark_damaged().into());
        }
        self.size = size;
        Ok(())
    }

    /// Whether a file that became smaller was truncated. `VACUUM` by an operator makes it smaller, too.
    fn lacks_pages(&self, size: u64) -> rusqlite::Result<bool> {
        match self.content_size() {
            Ok(content) => Ok(size < content),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Err(error),
            Err(_) => Ok(true),
        }
    }

    fn content_size(&self) -> rusqlite::Result<u64> {
        let size = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
        let size = self
            .connection
            .query_row(size, [], |row| row.get::<_, i64>(0))?;
        Ok(u64::try_from(size).unwrap_or_default())
    }

    /// Writes the log into the file, wherever both are now, and empties the log. Otherwise SQLite would take the log for
    /// a part of another file that is put in the place of this one.
    pub(super) fn empty_log(&self) -> rusqlite::Result<()> {
        let pragma = "PRAGMA wal_checkpoint(TRUNCATE)";
        self.connection.query_row(pragma, [], |_| Ok(()))
    }

    /// Creates the table, if it is missing, and counts a unit, in a transaction that is rolled back. Another process
    /// may have the file open.
    pub(super) fn try_out(path: &Path) -> rusqlite::Result<()> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(LOCK_TIMEOUT)?;
        // Dropping it rolls it back.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(CREATE)?;
        // No policy name contains a space.
        let unit = "INSERT INTO quota_counters VALUES ('a probe', '', 0, 0, 1) RETURNING used";
        transaction.query_row(unit, [], |_| Ok(()))
    }

    /// Reads from a file that another process may have open. `None` if it has no such table.
    pub(super) fn read_from<T>(
        path: &Path,
        table: &str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(LOCK_TIMEOUT)?;
        match connection.table_exists(None, table)? {
            true => query(&connection).map(Some),
            false => Ok(None),
        }
    }

    /// Tests that a commit reaches the disk. It rewrites the file's `user_version`, which is always 0.
    pub(super) fn check_writing(&self) -> rusqlite::Result<()> {
        self.connection.pragma_update(None, "user_version", 0)
    }

    pub(super) fn read(&self, counter: &Counter) -> rusqlite::Result<Option<Row>> {
        read(&self.connection, counter)
    }

    /// Writes all changes in one commit, which is on disk when this returns. If `take_over` is set, what an earlier
    /// process left is taken over before.
    pub(super) fn write(
        &mut self,
        changes: &[Change],
        records: Vec<RecordChange>,
        take_over: bool,
    ) -> rusqlite::Result<()> {
        // If it began with a read, it would not wait for another process's lock.
        let behavior = TransactionBehavior::Immediate;
        let Self {
            connection, keys, ..
        } = self;
        let transaction = connection.transaction_with_behavior(behavior)?;
        if take_over {
            take_over_records(&transaction)?;
        }
        keys.begin();
        if !records.is_empty() {
            let mut open = RecordWriter {
                connection: &transaction,
                keys,
            };
            for change in records {
                change(&mut open)?;
            }
            keys.write_some(&transaction)?;
        }
        {
            // Most counters exist, and an update costs half of an upsert.
            let mut update = transaction.prepare_cached(
                "UPDATE quota_counters SET window_start = ?3, window_end = ?4, used = ?5
                 WHERE policy = ?1 AND key = ?2",
            )?;
            let mut insert = transaction.prepare_cached(
                "INSERT INTO quota_counters (policy, key, window_start, window_end, used)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for Change { counter, row } in changes {
                let values = params![
                    counter.policy.as_str(),
                    counter.key,
                    row.window.start.as_second(),
                    row.window.end.as_second(),
                    i64::try_from(row.used).unwrap_or(i64::MAX),
                ];
                if update.execute(values)? == 0 {
                    insert.execute(values)?;
                }
            }
        }
        transaction.commit()?;
        keys.commit();
        Ok(())
    }

    /// Deletes old counters at `now` in the page after the row (`policy`, `key`). Returns the last row of the page, unless
    /// it is the last page.
    pub(super) fn delete_old(
        &self,
        (policy, key): RowName,
        now: Timestamp,
    ) -> rusqlite::Result<Option<RowName>> {
        let last = self
            .connection
            .prepare_cached(
                "SELECT policy, key FROM quota_counters WHERE (policy, key) > (?, ?)
                 ORDER BY policy, key LIMIT 1 OFFSET ?",
            )?
            .query_row(params![policy, key, PAGE - 1], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        self.connection
            .prepare_cached(
                "DELETE FROM quota_counters
                 WHERE (policy, key) IN (
                     SELECT policy, key FROM quota_counters WHERE (policy, key) > (?, ?)
                     ORDER BY policy, key LIMIT ?
                 ) AND 2 * window_end - window_start < ?",
            )?
            .execute(params![
                policy,
                key,
                PAGE,
                now.as_second() - RETENTION.as_secs()
            ])?;
        Ok(last)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.reads.close();
    }
}

pub(super) fn read(connection: &Connection, counter: &Counter) -> rusqlite::Result<Option<Row>> {
    let mut statement = connection.prepare_cached(
        "SELECT window_start, window_end, used FROM quota_counters WHERE policy = ? AND key = ?",
    )?;
    statement
        .query_row(params![counter.policy.as_str(), counter.key], |row| {
            Ok(Row {
                window: Window {
                    start: seconds(row.get(0)?),
                    end: seconds(row.get(1)?),
                },
                used: row.get::<_, i64>(2)?.try_into().unwrap_or_default(),
            })
        })
        .optional()
}

fn seconds(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}
