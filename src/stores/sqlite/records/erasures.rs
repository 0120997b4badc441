//! Erasures of a person's images.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Result, params};
use uuid::Uuid;

use super::rows::{Id, Micros, erased_subject};
use crate::stores::records::{ERASURE_KEPT, Erasure, Progress, RecordId};

pub(super) fn start(connection: &Connection, erasure: &Erasure) -> Result<()> {
    let start =
        "INSERT INTO upload_erasures VALUES (?, ?, ?, 0, NULL, ?, ?) ON CONFLICT DO NOTHING";
    connection.prepare_cached(start)?.execute(params![
        RecordId(erasure.id),
        Id::new(erasure.subject.as_str()),
        erasure.until,
        number(erasure.progress.deleted),
        number(erasure.progress.failed),
    ])?;
    Ok(())
}

pub(super) fn progress(connection: &Connection, id: Uuid) -> Result<Option<Progress>> {
    let find = "SELECT done_at IS NOT NULL, deleted, failed FROM upload_erasures WHERE id = ?";
    let mut find = connection.prepare_cached(find)?;
    let progress = find.query_row([RecordId(id)], |row| {
        Ok(Progress {
            done: row.get(0)?,
            deleted: row.get::<_, i64>(1)?.try_into().unwrap_or_default(),
            failed: row.get::<_, i64>(2)?.try_into().unwrap_or_default(),
        })
    });
    progress.optional()
}

pub(super) fn take(
    connection: &Connection,
    now: Timestamp,
    until: Timestamp,
) -> Result<Option<Erasure>> {
    let forget = "DELETE FROM upload_erasures WHERE done_at < ?";
    let mut forget = connection.prepare_cached(forget)?;
    forget.execute([Micros(kept_since(now))])?;
    let take = "SELECT id, subject, until, deleted, failed FROM upload_erasures
                WHERE done_at IS NULL AND taken_until <= ? ORDER BY id LIMIT 1";
    let mut take = connection.prepare_cached(take)?;
    let taken = take.query_row([Micros(now)], |row| {
        let RecordId(id) = row.get(0)?;
        Ok(Erasure {
            id,
            subject: erased_subject(row, 1)?,
            until: row.get(2)?,
            progress: Progress {
                done: false,
                deleted: row.get::<_, i64>(3)?.try_into().unwrap_or_default(),
                failed: row.get::<_, i64>(4)?.try_into().unwrap_or_default(),
            },
        })
    });
    let taken = taken.optional()?;
    if let Some(Erasure { id, .. }) = taken {
        let mark = "UPDATE upload_erasures SET taken_until = ? WHERE id = ?";
        let mut mark = connection.prepare_cached(mark)?;
        mark.execute(params![Micros(until), RecordId(id)])?;
    }
    Ok(taken)
}

pub(super) fn hold(connection: &Connection, id: Uuid, until: Timestamp) -> Result<()> {
    let hold = "UPDATE upload_erasures SET taken_until = ? WHERE id = ?";
    let mut hold = connection.prepare_cached(hold)?;
    hold.execute(params![Micros(until), RecordId(id)])?;
    Ok(())
}

/// When it is done, the person is forgotten.
pub(super) fn update(
    connection: &Connection,
    id: Uuid,
    progress: Progress,
    now: Timestamp,
) -> Result<()> {
    let update = "UPDATE upload_erasures
         SET deleted = ?2, failed = ?3, done_at = ?4, subject = iif(?4 IS NULL, subject, NULL)
         WHERE id = ?1 AND done_at IS NULL";
    connection.prepare_cached(update)?.execute(params![
        RecordId(id),
        number(progress.deleted),
        number(progress.failed),
        progress.done.then_some(Micros(now)),
    ])?;
    Ok(())
}

/// Since when what is done is kept.
pub(super) fn kept_since(now: Timestamp) -> Timestamp {
    now.saturating_sub(ERASURE_KEPT).unwrap_or(Timestamp::MIN)
}

pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
