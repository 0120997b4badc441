//! Events that wait for their delivery.

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use rusqlite::{Connection, Result, Row, params};
use uuid::{NoContext, Uuid};

use super::{leases::Leases, queries::View, rows::Micros};
use crate::stores::{
    events::{Backlog, EventKind, NewEvent, StoredEvent},
    records::RecordId,
};

/// The table of events.
pub(super) const EVENTS: &str = "upload_events";

pub(super) const CREATE: &str = "
CREATE TABLE IF NOT EXISTS upload_events (
    id BLOB PRIMARY KEY,
    kind TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    at INTEGER NOT NULL,
    data TEXT NOT NULL,
    failures INTEGER NOT NULL,
    due_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS upload_events_due ON upload_events (due_at);
";

/// Which events are being delivered.
#[derive(Clone, Default)]
pub(in crate::stores) struct Deliveries(Arc<Mutex<Leases<Uuid>>>);

/// An event with its id: a UUID of version 7 (RFC 9562) with the time of the event.
pub(super) struct EventRow(Uuid, NewEvent);

impl EventRow {
    /// The ids of events of one change are in their order, even if their times are equal.
    pub(super) fn new(events: Vec<NewEvent>) -> Vec<Self> {
        let mut ids: Vec<_> = events.iter().map(|event| new_id(event.at)).collect();
        ids.sort();
        let rows = ids.into_iter().zip(events);
        rows.map(|(id, event)| Self(id, event)).collect()
    }
}

fn new_id(at: Timestamp) -> Uuid {
    let seconds = u64::try_from(at.as_second()).unwrap_or_default();
    let nanoseconds = u32::try_from(at.subsec_nanosecond()).unwrap_or_default();
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, nanoseconds))
}

/// No event of this time or later has a lower id.
fn lowest_id(at: Timestamp) -> Uuid {
    let millis = u64::try_from(at.as_millisecond()).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}

/// Adds the events of a change of a record.
pub(super) fn add(connection: &Connection, id: RecordId, events: &[EventRow]) -> Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let count = "UPDATE upload_records SET events = coalesce(events, 0) + ? WHERE id = ?
                 RETURNING events";
    let count = connection
        .prepare_cached(count)?
        .query_row(params![events.len() as i64, id], |row| row.get::<_, i64>(0))?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO upload_events VALUES (?1, ?2, ?3, ?4, ?5, 0, ?4) ON CONFLICT DO NOTHING",
    )?;
    let first = count - events.len() as i64 + 1;
    for (sequence, EventRow(id, event)) in (first..).zip(events) {
        let kind: &str = event.kind.into();
        let at = Micros(event.at);
        insert.execute(params![RecordId(*id), kind, sequence, at, &*event.data])?;
    }
    Ok(())
}

impl Deliveries {
    pub(super) fn take(
        &self,
        view: &View<'_>,
        now: Timestamp,
        next: Timestamp,
        limit: u32,
    ) -> Result<Vec<StoredEvent>> {
        let leases = self.0.lock().len();
        let due = "SELECT id, kind, sequence, at, data, failures, due_at FROM upload_events
                   WHERE due_at <= ? ORDER BY due_at, at, sequence LIMIT ?";
        let mut due = view.connection.prepare_cached(due)?;
        let most = leases.saturating_add(limit as usize);
        let due = due.query_map(params![Micros(now), most as i64], |row| {
            let event = event(row)?;
            let Micros(due_at) = row.get("due_at")?;
            Ok((event.id, due_at, event))
        })?;
        let due = due.collect::<Result<_>>()?;
        Ok(self.0.lock().take(due, now, next, limit as usize))
    }
}

fn event(row: &Row<'_>) -> Result<StoredEvent> {
    let RecordId(id) = row.get(0)?;
    let kind = row.get_ref(1)?.as_str()?;
    let unknown = |error: strum::ParseError| {
        let column = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(1, column, Box::new(error))
    };
    let kind: EventKind = kind.parse().map_err(unknown)?;
    let Micros(at) = row.get(3)?;
    Ok(StoredEvent {
        id,
        kind,
        sequence: row.get::<_, i64>(2)?.try_into().unwrap_or_default(),
        at,
        data: row.get_ref(4)?.as_str()?.into(),
        failures: row.get(5)?,
    })
}

pub(super) fn finish(
    connection: &Connection,
    delivered: &[Uuid],
    failed: &[(Uuid, Timestamp)],
) -> Result<()> {
    let mut delete = connection.prepare_cached("DELETE FROM upload_events WHERE id = ?")?;
    for id in delivered {
        delete.execute([RecordId(*id)])?;
    }
    let later = "UPDATE upload_events SET failures = failures + 1, due_at = ? WHERE id = ?";
    let mut later = connection.prepare_cached(later)?;
    for (id, at) in failed {
        later.execute(params![Micros(*at), RecordId(*id)])?;
    }
    Ok(())
}

pub(super) fn drop_old(connection: &Connection, before: Timestamp, limit: u32) -> Result<u64> {
    let drop_old = "DELETE FROM upload_events
                    WHERE id IN (SELECT id FROM upload_events WHERE id < ? ORDER BY id LIMIT ?)";
    let mut drop_old = connection.prepare_cached(drop_old)?;
    let dropped = drop_old.execute(params![RecordId(lowest_id(before)), limit])?;
    Ok(dropped as u64)
}

pub(super) fn backlog(connection: &Connection) -> Result<Backlog> {
    let count = "SELECT (SELECT count(*) FROM upload_events),
                        (SELECT at FROM upload_events ORDER BY id LIMIT 1)";
    let mut count = connection.prepare_cached(count)?;
    count.query_row([], |row| {
        let oldest: Option<Micros> = row.get(1)?;
        Ok(Backlog {
            events: row.get::<_, i64>(0)?.try_into().unwrap_or_default(),
            oldest: oldest.map(|Micros(at)| at),
        })
    })
}
