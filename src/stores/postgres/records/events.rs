//! Events that wait for their delivery.

use std::time::SystemTime;

use jiff::Timestamp;
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use super::{
    super::statements::{Sql, Statements, system_time, timestamp},
    rows::{Parameter, Run, get, unsigned},
};
use crate::stores::{
    events::{Backlog, EventKind, NewEvent, StoredEvent},
    fault::StoreFault,
};

/// Adds the events $2, $3 and $4 if the rows of `changed` say so: `id`, `is_change`, and `events`, which is the sequence
/// of the last of them.
macro_rules! add_events {
    () => {
        "added as (\
            insert into imgwire_gate.event (id, upload, sequence, kind, at, data, due_at) \
            select gen_random_uuid(), id, events - cardinality($2) + number, kind, at, data, at \
            from changed, unnest($2, $3, $4) with ordinality as event (kind, at, data, number) \
            where is_change\
        )"
    };
}
pub(super) use add_events;

/// The types of a record's id, of [`EventValues`], and of what else a change has.
macro_rules! change_types {
    ($($more:expr),*) => {
        &[Type::UUID, Type::TEXT_ARRAY, Type::TIMESTAMPTZ_ARRAY, Type::TEXT_ARRAY, $($more),*]
    };
}
pub(super) use change_types;

/// The parameters of [`add_events`].
pub(super) struct EventValues<'a> {
    kinds: Vec<&'static str>,
    times: Vec<SystemTime>,
    data: Vec<&'a str>,
}

impl<'a> EventValues<'a> {
    pub(super) fn new(events: &'a [NewEvent]) -> Self {
        Self {
            kinds: events.iter().map(|it| it.kind.into()).collect(),
            times: events.iter().map(|it| system_time(it.at)).collect(),
            data: events.iter().map(|it| &*it.data).collect(),
        }
    }

    /// All parameters of a change.
    pub(super) fn and<'b>(&'b self, id: &'b Uuid, more: &[Parameter<'b>]) -> Vec<Parameter<'b>> {
        let events: [Parameter<'b>; 4] = [id, &self.kinds, &self.times, &self.data];
        [&events, more].concat()
    }
}

/// An event that another gate is taking is passed over.
pub(super) async fn take(
    statements: &Statements,
    now: Timestamp,
    next: Timestamp,
    limit: u32,
) -> Run<Vec<StoredEvent>> {
    const TAKE: Sql = Sql {
        text: "\
            with due as (\
                select id as due_id from imgwire_gate.event where due_at <= $1 \
                order by due_at, at, upload, sequence limit $3 for update skip locked\
            ), taken as (\
                update imgwire_gate.event set due_at = $2 from due where id = due_id returning event.*\
            ) \
            select id, kind, sequence, at, data, failures from taken order by at, upload, sequence",
        types: &[Type::TIMESTAMPTZ, Type::TIMESTAMPTZ, Type::INT8],
    };
    let (now, next, limit) = (system_time(now), system_time(next), i64::from(limit));
    let rows = statements.query(&TAKE, &[&now, &next, &limit]).await?;
    Ok(rows.iter().map(event).collect::<Result<_, _>>()?)
}

fn event(row: &Row) -> Result<StoredEvent, StoreFault> {
    let kind = get::<&str>(row, 1)?.parse::<EventKind>();
    Ok(StoredEvent {
        id: get(row, 0)?,
        kind: kind.map_err(|error| StoreFault::Refused(error.to_string()))?,
        sequence: unsigned(row, 2)?,
        at: timestamp(get(row, 3)?),
        data: get::<&str>(row, 4)?.into(),
        failures: u32::try_from(get::<i32>(row, 5)?).unwrap_or_default(),
    })
}

/// Locks events in the order of their ids, to avoid deadlocks.
pub(super) async fn finish(
    statements: &Statements,
    delivered: &[Uuid],
    failed: &[(Uuid, Timestamp)],
) -> Run<()> {
    const FINISH: Sql = Sql {
        text: "\
            with finished as (\
                select id as finished_id from imgwire_gate.event where id = any($1 || $2) \
                order by id for update\
            ), removed as (\
                delete from imgwire_gate.event using finished where id = finished_id and id = any($1)\
            ) \
            update imgwire_gate.event set due_at = next, failures = failures + 1 \
            from finished join unnest($2, $3) as failed (failed_id, next) on failed_id = finished_id \
            where id = finished_id",
        types: &[Type::UUID_ARRAY, Type::UUID_ARRAY, Type::TIMESTAMPTZ_ARRAY],
    };
    let (ids, times): (Vec<_>, Vec<_>) = failed
        .iter()
        .map(|(id, next)| (*id, system_time(*next)))
        .unzip();
    let values: &[Parameter<'_>] = &[&delivered, &ids, &times];
    statements.query(&FINISH, values).await?;
    Ok(())
}

pub(super) async fn remove_old(statements: &Statements, before: Timestamp, limit: u32) -> Run<u64> {
    const REMOVE_OLD: Sql = Sql {
        text: "\
            with removed as (\
                delete from imgwire_gate.event where id in (\
                    select id from imgwire_gate.event where at < $1 \
                    order by at limit $2 for update skip locked\
                ) returning true\
            ) \
            select count(*) from removed",
        types: &[Type::TIMESTAMPTZ, Type::INT8],
    };
    let (before, limit) = (system_time(before), i64::from(limit));
    let rows = statements.query(&REMOVE_OLD, &[&before, &limit]).await?;
    Ok(rows.first().map_or(Ok(0), |row| unsigned(row, 0))?)
}

pub(super) async fn backlog(statements: &Statements) -> Run<Backlog> {
    const COUNT: Sql = Sql {
        text: "select count(*), min(at) from imgwire_gate.event",
        types: &[],
    };
    let rows = statements.query(&COUNT, &[]).await?;
    let Some(row) = rows.first() else {
        return Ok(Backlog::default());
    };
    Ok(Backlog {
        events: unsigned(row, 0)?,
        oldest: get::<Option<SystemTime>>(row, 1)?.map(timestamp),
    })
}
