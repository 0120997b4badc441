//! Reconciliations of records with Imgwire.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Result, Row, params};
use uuid::Uuid;

use super::{
    erasures::{kept_since, number},
    rows::Micros,
};
use crate::stores::{
    reconciliations::{Reconciled, Reconciliation},
    records::RecordId,
};

pub(super) const CREATE: &str = "
CREATE TABLE IF NOT EXISTS upload_reconciliations (
    id BLOB PRIMARY KEY,
    after BLOB, -- the last record that was compared
    taken_until INTEGER NOT NULL,
    done_at INTEGER,
    checked INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    corrected INTEGER NOT NULL,
    failed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// The table of reconciliations.
pub(super) const RECONCILIATIONS: &str = "upload_reconciliations";

/// The columns of [`progress`].
const PROGRESS: &str = "done_at IS NOT NULL, checked, deleted, corrected, failed";

pub(super) fn start(connection: &Connection, id: Uuid) -> Result<Uuid> {
    let running = "SELECT id FROM upload_reconciliations WHERE done_at IS NULL";
    let running = connection
        .prepare_cached(running)?
        .query_row([], |row| row.get(0));
    if let Some(RecordId(running)) = running.optional()? {
        return Ok(running);
    }
    let start = "INSERT INTO upload_reconciliations VALUES (?, NULL, 0, NULL, 0, 0, 0, 0)
                 ON CONFLICT DO NOTHING";
    connection.prepare_cached(start)?.execute([RecordId(id)])?;
    Ok(id)
}

pub(super) fn find(connection: &Connection, id: Uuid) -> Result<Option<Reconciled>> {
    let find = format!("SELECT {PROGRESS} FROM upload_reconciliations WHERE id = ?");
    let mut find = connection.prepare_cached(&find)?;
    find.query_row([RecordId(id)], progress).optional()
}

fn progress(row: &Row<'_>) -> Result<Reconciled> {
    let count = |column| -> Result<u64> {
        let count: i64 = row.get(column)?;
        Ok(count.try_into().unwrap_or_default())
    };
    Ok(Reconciled {
        done: row.get(0)?,
        checked: count(1)?,
        deleted: count(2)?,
        corrected: count(3)?,
        failed: count(4)?,
    })
}

pub(super) fn take(
    connection: &Connection,
    now: Timestamp,
    until: Timestamp,
) -> Result<Option<Reconciliation>> {
    let forget = "DELETE FROM upload_reconciliations WHERE done_at < ?";
    let mut forget = connection.prepare_cached(forget)?;
    forget.execute([Micros(kept_since(now))])?;
    let take = format!(
        "UPDATE upload_reconciliations SET taken_until = ?
         WHERE done_at IS NULL AND taken_until <= ? RETURNING {PROGRESS}, id, after"
    );
    let mut take = connection.prepare_cached(&take)?;
    let taken = take.query_row(params![Micros(until), Micros(now)], |row| {
        let RecordId(id) = row.get("id")?;
        Ok(Reconciliation {
            id,
            after: row.get("after")?,
            progress: progress(row)?,
        })
    });
    taken.optional()
}

pub(super) fn save(
    connection: &Connection,
    reconciliation: &Reconciliation,
    until: Timestamp,
    now: Timestamp,
) -> Result<()> {
    let Reconciliation {
        id,
        after,
        progress,
    } = reconciliation;
    let save = "UPDATE upload_reconciliations
         SET after = ?2, taken_until = ?3, done_at = ?4, checked = ?5, deleted = ?6, corrected = ?7, failed = ?8
         WHERE id = ?1 AND done_at IS NULL";
    connection.prepare_cached(save)?.execute(params![
        RecordId(*id),
        after,
        Micros(until),
        progress.done.then_some(Micros(now)),
        number(progress.checked),
        number(progress.deleted),
        number(progress.corrected),
        number(progress.failed),
    ])?;
    Ok(())
}
