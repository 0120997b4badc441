//! Uploads that are followed, and how many images may be read.

use jiff::Timestamp;
use tokio_postgres::types::Type;

use super::{
    super::statements::{Sql, Statements, system_time},
    rows::{Parameter, Run, get, record, record_columns},
};
use crate::stores::records::{ReadRate, Record, RecordId};

/// `reads`: how many images may still be read at $1, if $2 may be in $3 seconds. It locks the row until the statement has
/// taken its part, so that gates come one after another. A time that is far ahead was the mistake of a clock.
macro_rules! reads {
    () => {
        "with reads as (\
            select is_over, greatest($2 - case when is_over then 0 else taken end, 0) as free from (\
                select taken, since <= $1 - $3 * interval '1 second' \
                    or since > $1 + interval '1 minute' as is_over \
                from imgwire_gate.upload_reads for update\
            ) as current\
        )"
    };
}

/// Takes a number of `reads`.
macro_rules! take_reads {
    ($number:literal) => {
        concat!(
            "update imgwire_gate.upload_reads \
             set since = case when is_over then $1 else since end, \
                 taken = case when is_over then 0 else taken end + ",
            $number,
            " from reads"
        )
    };
}

/// An upload that is being changed is passed over.
pub(super) async fn take(
    statements: &Statements,
    now: Timestamp,
    next: Timestamp,
    limit: u32,
    rate: ReadRate,
) -> Run<Vec<Record>> {
    const TAKE: Sql = Sql {
        text: concat!(
            reads!(),
            ", due as (\
                select id as due_id from imgwire_gate.upload where follow_at <= $1 and exists_now \
                order by follow_at limit coalesce((select least($4, free) from reads), 0) \
                for update skip locked\
            ), charged as (",
            take_reads!("(select count(*) from due)"),
            ") \
            update imgwire_gate.upload set follow_at = $5 from due where id = due_id \
            returning ",
            record_columns!(),
        ),
        types: &[
            Type::TIMESTAMPTZ,
            Type::INT8,
            Type::FLOAT8,
            Type::INT8,
            Type::TIMESTAMPTZ,
        ],
    };
    let (now, next, limit) = (system_time(now), system_time(next), i64::from(limit));
    let (most, period) = (i64::from(rate.limit), rate.period.as_secs_f64());
    let values: &[Parameter<'_>] = &[&now, &most, &period, &limit, &next];
    let rows = statements.query(&TAKE, values).await?;
    Ok(rows.iter().map(record).collect::<Result<_, _>>()?)
}

pub(super) async fn take_reads(
    statements: &Statements,
    now: Timestamp,
    wanted: u32,
    rate: ReadRate,
) -> Run<u32> {
    const TAKE: Sql = Sql {
        text: concat!(
            reads!(),
            take_reads!("least($4, free)"),
            " returning least($4, free)"
        ),
        types: &[Type::TIMESTAMPTZ, Type::INT8, Type::FLOAT8, Type::INT8],
    };
    let (now, wanted) = (system_time(now), i64::from(wanted));
    let (most, period) = (i64::from(rate.limit), rate.period.as_secs_f64());
    let rows = statements
        .query(&TAKE, &[&now, &most, &period, &wanted])
        .await?;
    let taken = rows.first().map_or(Ok(0), |row| get::<i64>(row, 0))?;
    Ok(u32::try_from(taken).unwrap_or_default())
}

/// The state is in the statement for the trigger that counts open uploads.
pub(super) async fn follow(statements: &Statements, id: RecordId, at: Timestamp) -> Run<()> {
    const FOLLOW: Sql = Sql {
        text: "update imgwire_gate.upload set follow_at = $2, state = state where id = $1 and exists_now",
        types: &[Type::UUID, Type::TIMESTAMPTZ],
    };
    let at = system_time(at);
    statements.query(&FOLLOW, &[&id.0, &at]).await?;
    Ok(())
}

/// Locks records in the order of their ids, to avoid deadlocks.
pub(super) async fn later(statements: &Statements, next: &[(RecordId, Timestamp)]) -> Run<()> {
    const LATER: Sql = Sql {
        text: "\
            with followed as (\
                select id as followed_id, next from imgwire_gate.upload \
                join unnest($1, $2) as wanted (wanted_id, next) on id = wanted_id \
                where follow_at is not null and exists_now \
                order by id for update of upload\
            ) \
            update imgwire_gate.upload set follow_at = next from followed where id = followed_id",
        types: &[Type::UUID_ARRAY, Type::TIMESTAMPTZ_ARRAY],
    };
    let (ids, times): (Vec<_>, Vec<_>) = next
        .iter()
        .map(|(RecordId(id), next)| (*id, system_time(*next)))
        .unzip();
    statements.query(&LATER, &[&ids, &times]).await?;
    Ok(())
}
