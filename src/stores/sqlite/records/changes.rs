//! Changes of records. Each runs in a transaction with other changes, so none of them fails because of what is stored.

use jiff::Timestamp;
use policies::{ImageId, TokenId};
use rusqlite::{Connection, OptionalExtension as _, Result, params};

use super::rows::{INTENT, Id, Micros, StateCode, intent, size};
use crate::stores::records::{FileFacts, Intent, Origin, RecordId, Replay, UploadState};

pub(super) fn begin(connection: &Connection, intent: &Intent) -> Result<bool> {
    if let Some(Replay { slot, .. }) = &intent.replay
        && is_slot_taken(connection, slot)?
    {
        return Ok(false);
    }
    let Intent { origin, replay, .. } = intent;
    let mut insert = connection.prepare_cached(
        "INSERT INTO upload_intents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )?;
    let inserted = insert.execute(params![
        intent.id,
        Id::new(origin.subject.as_str()),
        origin.workspace.as_ref().map(|it| Id::new(it.as_str())),
        origin.route.as_str(),
        origin.purpose.as_ref().map(|it| it.as_str()),
        origin.declared.mime_type,
        size(&origin.declared),
        Micros(origin.created_at),
        replay.as_ref().map(|it| it.slot),
        replay.as_ref().map(|it| it.parameters),
        Micros(intent.due_at),
        &*intent.call,
    ])?;
    Ok(inserted > 0)
}

fn is_slot_taken(connection: &Connection, slot: &[u8; 32]) -> Result<bool> {
    let taken = "SELECT EXISTS (SELECT 1 FROM upload_records WHERE slot = ?1)
                     OR EXISTS (SELECT 1 FROM upload_intents WHERE slot = ?1)";
    connection
        .prepare_cached(taken)?
        .query_row([slot], |row| row.get(0))
}

/// What a record has in addition to its origin.
struct Rest<'a> {
    replay: Option<&'a Replay>,
    image: Option<&'a ImageId>,
    token: Option<&'a TokenId>,
    state: UploadState,
}

fn insert(connection: &Connection, id: RecordId, origin: &Origin, rest: &Rest<'_>) -> Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO upload_records
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, ?, ?, NULL) ON CONFLICT DO NOTHING",
    )?;
    insert.execute(params![
        id,
        Id::new(origin.subject.as_str()),
        origin.workspace.as_ref().map(|it| Id::new(it.as_str())),
        origin.route.as_str(),
        origin.purpose.as_ref().map(|it| it.as_str()),
        origin.declared.mime_type,
        size(&origin.declared),
        Micros(origin.created_at),
        rest.replay.map(|it| it.slot),
        rest.replay.map(|it| it.parameters),
        rest.image.map(|it| Id::new(it.as_str())),
        rest.token.map(|it| Id::new(it.as_str())),
        StateCode(rest.state),
        rest.image.is_some(),
    ])?;
    Ok(())
}

pub(super) fn complete(connection: &Connection, intent: &Intent, image: &ImageId) -> Result<bool> {
    let mut replay = intent.replay.as_ref();
    if !withdraw(connection, intent.id)? {
        let found = "SELECT exists_now AND image = ? FROM upload_records WHERE id = ?";
        let found = connection
            .prepare_cached(found)?
            .query_row(params![Id::new(image.as_str()), intent.id], |row| {
                row.get::<_, Option<bool>>(0)
            })
            .optional()?;
        if let Some(is_complete) = found {
            return Ok(is_complete == Some(true));
        }
        if let Some(Replay { slot, .. }) = replay
            && is_slot_taken(connection, slot)?
        {
            replay = None;
        }
    }
    let rest = Rest {
        replay,
        image: Some(image),
        token: None,
        state: UploadState::Open,
    };
    insert(connection, intent.id, &intent.origin, &rest)?;
    Ok(true)
}

/// Returns whether there was such an intent.
pub(super) fn withdraw(connection: &Connection, id: RecordId) -> Result<bool> {
    let mut delete = connection.prepare_cached("DELETE FROM upload_intents WHERE id = ?")?;
    Ok(delete.execute([id])? > 0)
}

pub(super) fn take_due(
    connection: &Connection,
    now: Timestamp,
    next: Timestamp,
    limit: u32,
) -> Result<Vec<Intent>> {
    let due = format!(
        "SELECT {INTENT} FROM upload_intents WHERE due_at <= ? ORDER BY due_at, id LIMIT ?"
    );
    let mut due = connection.prepare_cached(&due)?;
    let due = due.query_map(params![Micros(now), limit], intent)?;
    let mut due = due.collect::<Result<Vec<_>>>()?;
    let mut postpone =
        connection.prepare_cached("UPDATE upload_intents SET due_at = ? WHERE id = ?")?;
    for intent in &mut due {
        intent.due_at = next;
        postpone.execute(params![Micros(next), intent.id])?;
    }
    Ok(due)
}

pub(super) fn issued(
    connection: &Connection,
    id: RecordId,
    origin: &Origin,
    token: &TokenId,
) -> Result<()> {
    let rest = Rest {
        replay: None,
        image: None,
        token: Some(token),
        state: UploadState::Issued,
    };
    insert(connection, id, origin, &rest)
}

/// A token that already led to an image keeps it.
pub(super) fn link(connection: &Connection, id: RecordId, image: &ImageId) -> Result<()> {
    let link =
        "UPDATE upload_records SET image = ?, exists_now = 1, state = ? WHERE id = ? AND state = ?";
    connection.prepare_cached(link)?.execute(params![
        Id::new(image.as_str()),
        StateCode(UploadState::Open),
        id,
        StateCode(UploadState::Issued),
    ])?;
    Ok(())
}

/// What Imgwire does not report stays as it was.
pub(super) fn observe(
    connection: &Connection,
    id: RecordId,
    state: UploadState,
    real: &FileFacts,
) -> Result<()> {
    let observe = "UPDATE upload_records
         SET state = ?, real_mime_type = coalesce(?, real_mime_type), real_size = coalesce(?, real_size)
         WHERE id = ? AND exists_now";
    connection.prepare_cached(observe)?.execute(params![
        StateCode(state),
        real.mime_type,
        size(real),
        id
    ])?;
    Ok(())
}

pub(super) fn delete(connection: &Connection, id: RecordId, at: Timestamp) -> Result<()> {
    let find = format!("SELECT {INTENT} FROM upload_intents WHERE id = ?");
    let mut find = connection.prepare_cached(&find)?;
    if let Some(open) = find.query_row([id], intent).optional()? {
        withdraw(connection, id)?;
        let rest = Rest {
            replay: None,
            image: None,
            token: None,
            state: UploadState::Requested,
        };
        insert(connection, id, &open.origin, &rest)?;
    }
    let delete = "UPDATE upload_records
         SET state = ?2, exists_now = 0, deleted_at = ?3, slot = NULL, parameters = NULL
         WHERE id = ?1 AND deleted_at IS NULL";
    connection.prepare_cached(delete)?.execute(params![
        id,
        StateCode(UploadState::Deleted),
        Micros(at)
    ])?;
    Ok(())
}

pub(super) fn remove(connection: &Connection, id: RecordId) -> Result<()> {
    withdraw(connection, id)?;
    let mut remove = connection.prepare_cached("DELETE FROM upload_records WHERE id = ?")?;
    remove.execute([id])?;
    Ok(())
}

pub(super) fn remove_old(connection: &Connection, before: Timestamp, limit: u32) -> Result<u64> {
    let mut removed = 0;
    for remove in [
        "DELETE FROM upload_records WHERE id IN (
             SELECT id FROM upload_records WHERE deleted_at < ? ORDER BY deleted_at LIMIT ?)",
        "DELETE FROM upload_records WHERE id IN (
             SELECT id FROM upload_records WHERE token IS NOT NULL AND created_at < ?
             ORDER BY created_at LIMIT ?)",
    ] {
        let left = u64::from(limit) - removed;
        let values = params![Micros(before), i64::try_from(left).unwrap_or(i64::MAX)];
        removed += connection.prepare_cached(remove)?.execute(values)? as u64;
    }
    Ok(removed)
}
