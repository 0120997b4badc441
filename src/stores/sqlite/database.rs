//! The SQL of the counters.

use std::{path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use policies::{Counter, Window};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior, params};

use crate::stores::retention::{PAGE, RETENTION, RowName};

/// How long to wait for another process, such as an operator's shell, that locks the file.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

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

pub(super) struct Database(Connection);

impl Database {
    pub(super) fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(LOCK_TIMEOUT)?;
        // In WAL mode, FULL means that a commit returns only when it is on disk.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // The log restarts after each checkpoint, so this keeps it at 1 MiB. Overwriting costs a third less than growing
        // the file, which allocates blocks and records a new size.
        connection.pragma_update(None, "wal_autocheckpoint", 256)?;
        connection.execute_batch(CREATE)?;
        Ok(Self(connection))
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

    pub(super) fn open_read_only(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(LOCK_TIMEOUT)?;
        Ok(Self(connection))
    }

    /// Tests that a commit reaches the disk. It rewrites the file's `user_version`, which is always 0.
    pub(super) fn check_writing(&self) -> rusqlite::Result<()> {
        self.0.pragma_update(None, "user_version", 0)
    }

    pub(super) fn read(&self, counter: &Counter) -> rusqlite::Result<Option<Row>> {
        let mut statement = self.0.prepare_cached(
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

    /// Writes all `changes` in one commit, which is on disk when this returns.
    pub(super) fn write(&mut self, changes: &[Change]) -> rusqlite::Result<()> {
        let transaction = self.0.transaction()?;
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
        transaction.commit()
    }

    /// Deletes old counters at `now` in the page after the row (`policy`, `key`). Returns the last row of the page, unless
    /// it is the last page.
    pub(super) fn delete_old(
        &self,
        (policy, key): RowName,
        now: Timestamp,
    ) -> rusqlite::Result<Option<RowName>> {
        let last = self
            .0
            .prepare_cached(
                "SELECT policy, key FROM quota_counters WHERE (policy, key) > (?, ?)
                 ORDER BY policy, key LIMIT 1 OFFSET ?",
            )?
            .query_row(params![policy, key, PAGE - 1], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        self.0
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

fn seconds(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}
