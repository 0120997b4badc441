//! Changes of records. Each runs in a transaction with other changes, so none of them fails because of what is stored.

use jiff::Timestamp;
use policies::{ImageId, TokenId};
use rusqlite::{OptionalExtension as _, Result, params};

use super::{
    keys::{self, Lookup, Owner},
    outbox::{self, EventRow},
    rows::{INTENT, Id, Micros, StateCode, digest, intent, size},
    storage::{self, CountedIn, HELD, HELD_BY_INTENT, Held},
    writer::RecordWriter,
};
use crate::stores::records::{
    Begun, Completed, Ending, Intent, Origin, RecordId, Replay, UploadState,
};

pub(super) fn begin(open: &mut RecordWriter<'_>, intent: &Intent) -> Result<Begun> {
    if let Some(Replay { slot, .. }) = &intent.replay
        && is_slot_taken(open, slot)?
    {
        return Ok(Begun::SlotTaken);
    }
    let held = charged(intent);
    let mut exceeded = Vec::new();
    for charge in intent.charges.iter() {
        let used = storage::used(open.connection, &charge.counter)?;
        if let Some(full) = charge.check(used, held.amount.bytes) {
            let policy = charge.counter.policy.clone();
            if charge.is_enforced {
                return Ok(Begun::Full(policy, full));
            }
            exceeded.push((policy, full));
        }
    }
    let Intent { origin, replay, .. } = intent;
    let mut insert = open.connection.prepare_cached(
        "INSERT INTO upload_intents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
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
        held.counters,
    ])?;
    if inserted == 0 {
        return Ok(Begun::SlotTaken);
    }
    held.take(open.connection)?;
    Ok(Begun::Recorded(exceeded))
}

/// What an intent takes.
fn charged(intent: &Intent) -> Held {
    let counters = intent.charges.iter().map(|charge| &charge.counter);
    Held::upload(CountedIn::new(counters), size(&intent.origin.declared))
}

fn is_slot_taken(open: &RecordWriter<'_>, slot: &[u8; 32]) -> Result<bool> {
    let hash = Lookup::Slot(slot).hash();
    let taken = "SELECT EXISTS (SELECT 1 FROM upload_intents WHERE slot = ?1)
                     OR EXISTS (SELECT 1 FROM upload_keys JOIN upload_records USING (id)
                                WHERE hash = ?2 AND slot = ?1)";
    let mut taken = open.connection.prepare_cached(taken)?;
    if taken.query_row(params![slot, hash], |row| row.get(0))? {
        return Ok(true);
    }
    let has_slot = "SELECT EXISTS (SELECT 1 FROM upload_records WHERE id = ? AND slot = ?)";
    for id in open.keys.ids(hash) {
        let mut has_slot = open.connection.prepare_cached(has_slot)?;
        if has_slot.query_row(params![id, slot], |row| row.get(0))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a record has in addition to its origin.
struct Rest<'a> {
    replay: Option<&'a Replay>,
    image: Option<&'a ImageId>,
    token: Option<&'a TokenId>,
    state: UploadState,
    counters: Option<CountedIn>,
    follow_at: Option<Timestamp>,
}

fn insert(
    open: &mut RecordWriter<'_>,
    id: RecordId,
    origin: &Origin,
    rest: &Rest<'_>,
) -> Result<()> {
    let mut insert = open.connection.prepare_cached(
        "INSERT INTO upload_records
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, ?, ?, NULL, ?, ?, NULL)
         ON CONFLICT DO NOTHING",
    )?;
    let inserted = insert.execute(params![
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
        rest.counters,
        rest.follow_at.map(Micros),
    ])?;
    if inserted == 0 {
        return Ok(());
    }
    let owner = Owner {
        subject: &origin.subject,
        workspace: origin.workspace.as_ref(),
        image: rest.image,
        token: rest.token,
        replay: rest.replay,
    };
    open.keys.add(open.connection, id, &owner)
}

pub(super) fn complete(
    open: &mut RecordWriter<'_>,
    intent: &Intent,
    image: &ImageId,
    follow_at: Timestamp,
) -> Result<Completed> {
    let mut replay = intent.replay.as_ref();
    let mut held = take_intent(open, intent.id)?;
    if held.is_none() {
        let found = "SELECT exists_now AND image = ? FROM upload_records WHERE id = ?";
        let found = open
            .connection
            .prepare_cached(found)?
            .query_row(params![Id::new(image.as_str()), intent.id], |row| {
                row.get::<_, Option<bool>>(0)
            })
            .optional()?;
        if let Some(is_complete) = found {
            return Ok(match is_complete {
                Some(true) => Completed::Before,
                _ => Completed::Never,
            });
        }
        if let Some(Replay { slot, .. }) = replay
            && is_slot_taken(open, slot)?
        {
            replay = None;
        }
        let charged = charged(intent);
        charged.take(open.connection)?;
        held = Some(charged);
    }
    let rest = Rest {
        replay,
        image: Some(image),
        token: None,
        state: UploadState::Open,
        counters: held.and_then(|held| held.counters),
        follow_at: Some(follow_at),
    };
    insert(open, intent.id, &intent.origin, &rest)?;
    Ok(Completed::Now)
}

/// Removes an intent, and returns what it holds.
fn take_intent(open: &RecordWriter<'_>, id: RecordId) -> Result<Option<Held>> {
    let take = format!("DELETE FROM upload_intents WHERE id = ? RETURNING {HELD_BY_INTENT}");
    let mut take = open.connection.prepare_cached(&take)?;
    take.query_row([id], |row| Held::read(row, 0)).optional()
}

pub(super) fn withdraw(open: &mut RecordWriter<'_>, id: RecordId) -> Result<()> {
    match take_intent(open, id)? {
        Some(held) => held.give_back(open.connection),
        None => Ok(()),
    }
}

pub(super) fn take_due(
    open: &mut RecordWriter<'_>,
    now: Timestamp,
    next: Timestamp,
    limit: u32,
) -> Result<Vec<Intent>> {
    let due = format!(
        "SELECT {INTENT} FROM upload_intents WHERE due_at <= ?
             AND (slot IS NOT NULL
                  OR call NOT IN (SELECT call FROM upload_intents WHERE slot IS NOT NULL))
         ORDER BY due_at, id LIMIT ?"
    );
    let mut due = open.connection.prepare_cached(&due)?;
    let due = due.query_map(params![Micros(now), limit], intent)?;
    let mut due = due.collect::<Result<Vec<_>>>()?;
    let mut postpone = open
        .connection
        .prepare_cached("UPDATE upload_intents SET due_at = ? WHERE id = ?")?;
    for intent in &mut due {
        intent.due_at = next;
        postpone.execute(params![Micros(next), intent.id])?;
    }
    Ok(due)
}

pub(super) fn issued(
    open: &mut RecordWriter<'_>,
    id: RecordId,
    origin: &Origin,
    token: &TokenId,
) -> Result<()> {
    let rest = Rest {
        replay: None,
        image: None,
        token: Some(token),
        state: UploadState::Issued,
        counters: None,
        follow_at: None,
    };
    insert(open, id, origin, &rest)
}

/// A token that already led to an image keeps it.
pub(super) fn link(open: &mut RecordWriter<'_>, id: RecordId, image: &ImageId) -> Result<()> {
    let link =
        "UPDATE upload_records SET image = ?, exists_now = 1, state = ? WHERE id = ? AND state = ?";
    let linked = open.connection.prepare_cached(link)?.execute(params![
        Id::new(image.as_str()),
        StateCode(UploadState::Open),
        id,
        StateCode(UploadState::Issued),
    ])?;
    if linked == 0 {
        return Ok(());
    }
    keys::insert(open.connection, Lookup::Image(image), id)?;
    open.keys.list(open.connection, id, true)
}

pub(super) fn delete(
    open: &mut RecordWriter<'_>,
    id: RecordId,
    ending: Ending,
    at: Timestamp,
    events: &[EventRow],
) -> Result<bool> {
    let find = format!("SELECT {INTENT} FROM upload_intents WHERE id = ?");
    let mut find = open.connection.prepare_cached(&find)?;
    if let Some(begun) = find.query_row([id], intent).optional()? {
        withdraw(open, id)?;
        let rest = Rest {
            replay: None,
            image: None,
            token: None,
            state: UploadState::Requested,
            counters: None,
            follow_at: None,
        };
        insert(open, id, &begun.origin, &rest)?;
    }
    let find =
        format!("SELECT {HELD}, slot FROM upload_records WHERE id = ? AND deleted_at IS NULL");
    let mut find = open.connection.prepare_cached(&find)?;
    let found = find.query_row([id], |row| Ok((Held::read(row, 0)?, digest(row, 3)?)));
    let Some((held, slot)) = found.optional()? else {
        return Ok(false);
    };
    if let Some(slot) = slot {
        keys::forget(open.connection, Lookup::Slot(&slot), id)?;
    }
    let delete = "UPDATE upload_records
         SET state = ?2, exists_now = 0, deleted_at = ?3, slot = NULL, parameters = NULL,
             counters = NULL, follow_at = NULL
         WHERE id = ?1";
    open.connection.prepare_cached(delete)?.execute(params![
        id,
        StateCode(ending.into()),
        Micros(at)
    ])?;
    open.keys.list(open.connection, id, false)?;
    held.give_back(open.connection)?;
    outbox::add(open.connection, id, events)?;
    Ok(true)
}

pub(super) fn remove(open: &mut RecordWriter<'_>, id: RecordId) -> Result<()> {
    withdraw(open, id)?;
    open.keys.remove(open.connection, id)?;
    let remove = format!("DELETE FROM upload_records WHERE id = ? RETURNING {HELD}");
    let mut remove = open.connection.prepare_cached(&remove)?;
    match remove
        .query_row([id], |row| Held::read(row, 0))
        .optional()?
    {
        Some(held) => held.give_back(open.connection),
        None => Ok(()),
    }
}

pub(super) fn remove_old(
    open: &mut RecordWriter<'_>,
    before: Timestamp,
    limit: u32,
) -> Result<u64> {
    let mut removed = 0;
    for old in [
        "SELECT id FROM upload_records WHERE deleted_at < ? ORDER BY deleted_at LIMIT ?",
        "SELECT id FROM upload_records WHERE token IS NOT NULL AND image IS NULL AND created_at < ?
         ORDER BY created_at LIMIT ?",
    ] {
        let left = i64::from(limit) - removed;
        let mut old = open.connection.prepare_cached(old)?;
        let old = old.query_map(params![Micros(before), left], |row| row.get(0))?;
        for id in old.collect::<Result<Vec<RecordId>>>()? {
            remove(open, id)?;
            removed += 1;
        }
    }
    Ok(removed.unsigned_abs())
}
