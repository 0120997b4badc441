//! Uploads that are followed, and how many images may be read.

use jiff::Timestamp;
use tokio_postgres::types::Type;

use super::{
    super::statements::{Sql, Statements, system_time},
    rows::{Parameter, Run, get, record, record_columns},
};
use crate::stores::records::{ReadRate, Record, RecordId};

/// An upload that is being changed is passed over. One for which no read is left stays due.
pub(super) async fn take(
    statements: &Statements,
    now: Timestamp,
    next: Timestamp,
    limit: u32,
    rate: ReadRate,
) -> Run<Vec<Record>> {
    const TAKE: Sql = Sql {
        text: concat!(
            "with due as (\
                select id as due_id, follow_at as was_due_at from imgwire_gate.upload \
                where follow_at <= $1 and exists_now order by follow_at limit $2 for update skip locked\
            ), read as (\
                select imgwire_gate.take_reads($1, (select count(*) from due), $3, $4 * interval '1 second') as number\
            ), taken as (\
                select due_id from due order by was_due_at limit (select number from read)\
            ) \
            update imgwire_gate.upload set follow_at = $5 from taken where id = due_id returning ",
            record_columns!(),
        ),
        types: &[
            Type::TIMESTAMPTZ,
            Type::INT8,
            Type::INT8,
            Type::FLOAT8,
            Type::TIMESTAMPTZ,
        ],
    };
    let (now, next, limit) = (system_time(now), system_time(next), i64::from(limit));
    let (most, period) = (i64::from(rate.limit), rate.period.as_secs_f64());
    let values: &[Parameter<'_>] = &[&now, &limit, &most, &period, &next];
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
        text: "select imgwire_gate.take_reads($1, $2, $3, $4 * interval '1 second')",
        types: &[Type::TIMESTAMPTZ, Type::INT8, Type::INT8, Type::FLOAT8],
    };
    let (now, wanted) = (system_time(now), i64::from(wanted));
    let (most, period) = (i64::from(rate.limit), rate.period.as_secs_f64());
    let values: &[Parameter<'_>] = &[&now, &wanted, &most, &period];
    let rows = statements.query(&TAKE, values).await?;
    let taken = rows.first().map_or(Ok(0), |row| get::<i64>(row, 0))?;
    Ok(u32::try_from(taken).unwrap_or_default())
}

pub(super) async fn follow(statements: &Statements, id: RecordId, at: Timestamp) -> Run<()> {
    const FOLLOW: Sql = Sql {
        text: "update imgwire_gate.upload set follow_at = $2 where id = $1 and exists_now",
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
