//! Uploads that are followed, and the rate of the reads for it.

use std::{collections::VecDeque, sync::Arc};

use jiff::Timestamp;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension as _, Result, params};

use super::{
    leases::Leases,
    outbox::{self, EventRow},
    queries::View,
    rows::{Micros, RECORD, StateCode, record, size},
    storage::{HELD, Held},
    writer::RecordWriter,
};
use crate::stores::records::{FileFacts, ReadRate, Record, RecordId, UploadState};

/// Which uploads are being read.
#[derive(Clone, Default)]
pub(in crate::stores) struct Following(Arc<Mutex<Reads>>);

#[derive(Default)]
struct Reads {
    leases: Leases<RecordId>,
    recent: RecentReads,
}

impl Following {
    pub(super) fn take_reads(&self, now: Timestamp, wanted: u32, rate: ReadRate) -> u32 {
        let recent = &mut self.0.lock().recent;
        let taken = wanted.min(recent.left(now, rate));
        recent.add(now, taken);
        taken
    }

    pub(super) fn take(
        &self,
        view: &View<'_>,
        now: Timestamp,
        next: Timestamp,
        limit: u32,
        rate: ReadRate,
    ) -> Result<Vec<Record>> {
        let (wanted, leases) = {
            let reads = &mut *self.0.lock();
            (limit.min(reads.recent.left(now, rate)), reads.leases.len())
        };
        if wanted == 0 {
            return Ok(Vec::new());
        }
        let due = followed(view, now, leases.saturating_add(wanted as usize))?;
        let reads = &mut *self.0.lock();
        let wanted = wanted.min(reads.recent.left(now, rate));
        let taken = reads.leases.take(due, now, next, wanted as usize);
        reads.recent.add(now, taken.len() as u32);
        Ok(taken)
    }
}

/// How many reads were taken when, in the last period.
#[derive(Default)]
struct RecentReads(VecDeque<(Timestamp, u32)>);

impl RecentReads {
    fn left(&mut self, now: Timestamp, rate: ReadRate) -> u32 {
        // If the clock was set back, what was taken at a later time counts no longer.
        let is_recent = |at| at <= now && now.duration_since(at).unsigned_abs() < rate.period;
        self.0.retain(|(at, _)| is_recent(*at));
        let recent = self.0.iter().map(|(_, reads)| *reads);
        rate.limit
            .saturating_sub(recent.fold(0, u32::saturating_add))
    }

    fn add(&mut self, now: Timestamp, reads: u32) {
        if reads > 0 {
            self.0.push_back((now, reads));
        }
    }
}

fn followed(
    view: &View<'_>,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<(RecordId, Timestamp, Record)>> {
    let followed = format!(
        "SELECT {RECORD}, follow_at FROM upload_records WHERE follow_at <= ? ORDER BY follow_at LIMIT ?"
    );
    let mut followed = view.connection.prepare_cached(&followed)?;
    let rows = followed.query_map(params![Micros(now), limit as i64], |row| {
        let record = record(row)?;
        let Micros(follow_at) = row.get("follow_at")?;
        Ok((record.id, follow_at, record))
    })?;
    rows.collect()
}

pub(super) fn follow(open: &mut RecordWriter<'_>, id: RecordId, at: Timestamp) -> Result<()> {
    let connection = open.connection;
    let Some((held, _)) = find_existing(connection, id)? else {
        return Ok(());
    };
    let follow = format!("UPDATE upload_records SET follow_at = ? WHERE id = ? RETURNING {HELD}");
    let mut follow = connection.prepare_cached(&follow)?;
    let after = follow.query_row(params![Micros(at), id], |row| Held::read(row, 0))?;
    held.become_amount(connection, after.amount)
}

/// Returns what an image that exists holds, and its state.
fn find_existing(connection: &Connection, id: RecordId) -> Result<Option<(Held, UploadState)>> {
    let find = format!("SELECT {HELD}, state FROM upload_records WHERE id = ? AND exists_now");
    let mut find = connection.prepare_cached(&find)?;
    let found = find.query_row([id], |row| {
        let StateCode(state) = row.get("state")?;
        Ok((Held::read(row, 0)?, state))
    });
    found.optional()
}

pub(super) fn follow_later(
    open: &mut RecordWriter<'_>,
    next: &[(RecordId, Timestamp)],
) -> Result<()> {
    let later = "UPDATE upload_records SET follow_at = ? WHERE id = ? AND follow_at IS NOT NULL";
    let mut later = open.connection.prepare_cached(later)?;
    for (id, at) in next {
        later.execute(params![Micros(*at), id])?;
    }
    Ok(())
}

/// What Imgwire does not report stays as it was.
pub(super) fn settle(
    open: &mut RecordWriter<'_>,
    id: RecordId,
    state: UploadState,
    real: &FileFacts,
    events: &[EventRow],
) -> Result<bool> {
    let connection = open.connection;
    let Some((held, before)) = find_existing(connection, id)? else {
        return Ok(false);
    };
    let settle = format!(
        "UPDATE upload_records
         SET state = ?1, real_mime_type = coalesce(?2, real_mime_type), real_size = coalesce(?3, real_size),
             follow_at = CASE WHEN ?1 = ?5 THEN follow_at END
         WHERE id = ?4 RETURNING {HELD}"
    );
    let open = StateCode(UploadState::Open);
    let values = params![StateCode(state), real.mime_type, size(real), id, open];
    let mut settle = connection.prepare_cached(&settle)?;
    let after = settle.query_row(values, |row| Held::read(row, 0))?;
    held.become_amount(connection, after.amount)?;
    if before == state {
        return Ok(false);
    }
    outbox::add(connection, id, events)?;
    Ok(true)
}
