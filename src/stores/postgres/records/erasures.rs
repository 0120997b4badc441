//! Erasures of a person's images, and the secret of keyed digests.

use std::time::SystemTime;

use jiff::Timestamp;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::{
    super::statements::{Sql, Statements, system_time},
    rows::{Run, digest, get, number, subject, unsigned},
};
use crate::stores::records::{ERASURE_KEPT, Erasure, Progress, RecordId};

pub(super) async fn start(statements: &Statements, erasure: &Erasure) -> Run<()> {
    const START: Sql = Sql {
        text: "insert into imgwire_gate.erasure (id, subject, until, taken_until, deleted, failed) \
               values ($1, $2, $3, $4, $5, $6) on conflict do nothing",
        types: &[
            Type::UUID,
            Type::TEXT,
            Type::UUID,
            Type::TIMESTAMPTZ,
            Type::INT8,
            Type::INT8,
        ],
    };
    let Progress {
        deleted, failed, ..
    } = erasure.progress;
    let values: &[&(dyn ToSql + Sync)] = &[
        &erasure.id,
        &erasure.subject.as_str(),
        &erasure.until.0,
        &SystemTime::UNIX_EPOCH,
        &number(deleted),
        &number(failed),
    ];
    statements.query(&START, values).await?;
    Ok(())
}

pub(super) async fn progress(statements: &Statements, id: Uuid) -> Run<Option<Progress>> {
    const FIND: Sql = Sql {
        text: "select done_at is not null, deleted, failed from imgwire_gate.erasure where id = $1",
        types: &[Type::UUID],
    };
    let rows = statements.query(&FIND, &[&id]).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    Ok(Some(Progress {
        done: get(row, 0)?,
        deleted: unsigned(row, 1)?,
        failed: unsigned(row, 2)?,
    }))
}

/// Forgets old erasures, too.
pub(super) async fn take(
    statements: &Statements,
    now: Timestamp,
    until: Timestamp,
) -> Run<Option<Erasure>> {
    const TAKE: Sql = Sql {
        text: "\
            with forgotten as (delete from imgwire_gate.erasure where done_at < $3), \
            free as (\
                select id as free_id from imgwire_gate.erasure \
                where done_at is null and taken_until <= $1 \
                order by id limit 1 for update skip locked\
            ) \
            update imgwire_gate.erasure set taken_until = $2 from free where id = free_id \
            returning id, subject, until, deleted, failed",
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
    Ok(Some(Erasure {
        id: get(row, 0)?,
        subject: subject(row, 1)?,
        until: RecordId(get(row, 2)?),
        progress: Progress {
            done: false,
            deleted: unsigned(row, 3)?,
            failed: unsigned(row, 4)?,
        },
    }))
}

pub(super) async fn hold(statements: &Statements, id: Uuid, until: Timestamp) -> Run<()> {
    const HOLD: Sql = Sql {
        text: "update imgwire_gate.erasure set taken_until = $2 where id = $1",
        types: &[Type::UUID, Type::TIMESTAMPTZ],
    };
    statements.query(&HOLD, &[&id, &system_time(until)]).await?;
    Ok(())
}

/// When it is done, the person is forgotten.
pub(super) async fn update(statements: &Statements, id: Uuid, progress: Progress) -> Run<()> {
    const UPDATE: Sql = Sql {
        text: "update imgwire_gate.erasure \
               set deleted = $2, failed = $3, subject = case when $4 then null else subject end, \
                   done_at = case when $4 then clock_timestamp() end \
               where id = $1 and done_at is null",
        types: &[Type::UUID, Type::INT8, Type::INT8, Type::BOOL],
    };
    let (deleted, failed) = (number(progress.deleted), number(progress.failed));
    let values: &[&(dyn ToSql + Sync)] = &[&id, &deleted, &failed, &progress.done];
    statements.query(&UPDATE, values).await?;
    Ok(())
}

/// Keeps `new`, unless there is a secret.
pub(super) async fn keep_secret(statements: &Statements, new: [u8; 32]) -> Run<Option<[u8; 32]>> {
    const KEEP: Sql = Sql {
        text: "insert into imgwire_gate.upload_secret (secret) values ($1) on conflict do nothing",
        types: &[Type::BYTEA],
    };
    const FIND: Sql = Sql {
        text: "select secret from imgwire_gate.upload_secret",
        types: &[],
    };
    let find = async || -> Run<Option<[u8; 32]>> {
        let rows = statements.query(&FIND, &[]).await?;
        match rows.first() {
            Some(row) => Ok(digest(row, 0)?),
            None => Ok(None),
        }
    };
    if let Some(secret) = find().await? {
        return Ok(Some(secret));
    }
    statements.query(&KEEP, &[&new.as_slice()]).await?;
    find().await
}
