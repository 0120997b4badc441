//! Comparisons of all records with Imgwire.

use std::time::SystemTime;

use jiff::Timestamp;
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use super::{
    super::statements::{Sql, Statements, system_time},
    rows::{Parameter, Run, get, number, unsigned},
};
use crate::stores::{
    fault::StoreFault,
    reconciliations::{Reconciled, Reconciliation},
    records::{ERASURE_KEPT, RecordId},
};

pub(super) async fn start(statements: &Statements, id: Uuid) -> Run<Uuid> {
    const START: Sql = Sql {
        text: "\
            insert into imgwire_gate.reconciliation as running (\
                id, taken_until, checked, deleted, corrected, failed\
            ) values ($1, $2, 0, 0, 0, 0) \
            on conflict ((done_at is null)) where done_at is null do update set id = running.id \
            returning id",
        types: &[Type::UUID, Type::TIMESTAMPTZ],
    };
    let taken_until = SystemTime::UNIX_EPOCH;
    let rows = statements.query(&START, &[&id, &taken_until]).await?;
    Ok(rows.first().map_or(Ok(id), |row| get(row, 0))?)
}

/// Reads four columns from `first` on.
fn progress(row: &Row, first: usize, done: bool) -> Result<Reconciled, StoreFault> {
    Ok(Reconciled {
        done,
        checked: unsigned(row, first)?,
        deleted: unsigned(row, first + 1)?,
        corrected: unsigned(row, first + 2)?,
        failed: unsigned(row, first + 3)?,
    })
}

pub(super) async fn find(statements: &Statements, id: Uuid) -> Run<Option<Reconciled>> {
    const FIND: Sql = Sql {
        text: "select done_at is not null, checked, deleted, corrected, failed \
               from imgwire_gate.reconciliation where id = $1",
        types: &[Type::UUID],
    };
    let rows = statements.query(&FIND, &[&id]).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    Ok(Some(progress(row, 1, get(row, 0)?)?))
}

/// Forgets old reconciliations, too.
pub(super) async fn take(
    statements: &Statements,
    now: Timestamp,
    until: Timestamp,
) -> Run<Option<Reconciliation>> {
    const TAKE: Sql = Sql {
        text: "\
            with forgotten as (delete from imgwire_gate.reconciliation where done_at < $3), \
            free as (\
                select id as free_id from imgwire_gate.reconciliation \
                where done_at is null and taken_until <= $1 for update skip locked\
            ) \
            update imgwire_gate.reconciliation set taken_until = $2 from free where id = free_id \
            returning id, after, checked, deleted, corrected, failed",
        types: &[Type::TIMESTAMPTZ, Type::TIMESTAMPTZ, Type::TIMESTAMPTZ],
    };
    let kept_since = now.saturating_sub(ERASURE_KEPT).unwrap_or(Timestamp::MIN);
    let times = [now, until, kept_since].map(system_time);
    let rows = statements
        .query(&TAKE, &[&times[0], &times[1], &times[2]])
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let after: Option<Uuid> = get(row, 1)?;
    Ok(Some(Reconciliation {
        id: get(row, 0)?,
        after: after.map(RecordId),
        progress: progress(row, 2, false)?,
    }))
}

pub(super) async fn save(
    statements: &Statements,
    reconciliation: &Reconciliation,
    until: Timestamp,
) -> Run<()> {
    const SAVE: Sql = Sql {
        text: "update imgwire_gate.reconciliation \
               set after = $2, taken_until = $3, checked = $4, deleted = $5, corrected = $6, \
                   failed = $7, done_at = case when $8 then clock_timestamp() end \
               where id = $1 and done_at is null",
        types: &[
            Type::UUID,
            Type::UUID,
            Type::TIMESTAMPTZ,
            Type::INT8,
            Type::INT8,
            Type::INT8,
            Type::INT8,
            Type::BOOL,
        ],
    };
    let Reconciliation {
        id,
        after,
        progress,
    } = reconciliation;
    let values: &[Parameter<'_>] = &[
        id,
        &after.map(|it| it.0),
        &system_time(until),
        &number(progress.checked),
        &number(progress.deleted),
        &number(progress.corrected),
        &number(progress.failed),
        &progress.done,
    ];
    statements.query(&SAVE, values).await?;
    Ok(())
}
