//! Changes of records. Each is one statement, and concurrent ones meet at a row.

use std::time::SystemTime;

use jiff::Timestamp;
use policies::{ImageId, TokenId};
use tokio_postgres::{error::SqlState, types::Type};
use uuid::Uuid;

use super::{
    super::statements::{Sql, Statements, system_time},
    events::{EventValues, add_events, change_types},
    rows::{Parameter, Run, get, intent, number, text},
    storage::{NamedCounters, begun},
};
use crate::stores::{
    events::NewEvent,
    fault::StoreFault,
    records::{Begun, Completed, Ending, FileFacts, Intent, Origin, RecordId, Replay, UploadState},
};

/// The types of an origin and its id.
macro_rules! insert_types {
    ($($more:expr),*) => {
        &[
            Type::UUID,
            Type::TEXT,
            Type::TEXT,
            Type::TEXT,
            Type::TEXT,
            Type::TEXT,
            Type::INT8,
            Type::TIMESTAMPTZ,
            $($more),*
        ]
    };
}

/// The parameters of an origin and its id.
struct Values<'a> {
    id: Uuid,
    subject: &'a str,
    workspace: Option<&'a str>,
    route: &'a str,
    purpose: Option<&'a str>,
    mime_type: Option<String>,
    size: Option<i64>,
    created_at: SystemTime,
}

impl<'a> Values<'a> {
    fn new(RecordId(id): RecordId, origin: &'a Origin) -> Self {
        Self {
            id,
            subject: origin.subject.as_str(),
            workspace: origin.workspace.as_ref().map(|it| it.as_str()),
            route: origin.route.as_str(),
            purpose: origin.purpose.as_ref().map(|it| it.as_str()),
            mime_type: text(origin.declared.mime_type.as_ref()),
            size: origin.declared.size.map(number),
            created_at: system_time(origin.created_at),
        }
    }

    fn and<'b>(&'b self, more: &[Parameter<'b>]) -> Vec<Parameter<'b>> {
        let origin: [Parameter<'b>; 8] = [
            &self.id,
            &self.subject,
            &self.workspace,
            &self.route,
            &self.purpose,
            &self.mime_type,
            &self.size,
            &self.created_at,
        ];
        [&origin, more].concat()
    }
}

fn replay(replay: Option<&Replay>) -> (Option<&[u8]>, Option<&[u8]>) {
    (
        replay.map(|it| it.slot.as_slice()),
        replay.map(|it| it.parameters.as_slice()),
    )
}

pub(super) async fn begin(statements: &Statements, intent: &Intent) -> Run<Begun> {
    const BEGIN: Sql = Sql {
        text: "\
            select outcome, bytes, images, open from imgwire_gate.begin_upload(\
                $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17\
            )",
        types: insert_types!(
            Type::BYTEA,
            Type::BYTEA,
            Type::TEXT,
            Type::TIMESTAMPTZ,
            Type::TEXT_ARRAY,
            Type::TEXT_ARRAY,
            Type::INT8_ARRAY,
            Type::INT8_ARRAY,
            Type::INT8_ARRAY
        ),
    };
    let (slot, parameters) = replay(intent.replay.as_ref());
    let due_at = system_time(intent.due_at);
    let call = &*intent.call;
    let counters = NamedCounters::of(intent);
    let (policies, keys) = counters.names();
    let max_bytes = counters.limits(|it| it.max_bytes);
    let max_images = counters.limits(|it| it.max_images);
    let max_open = counters.limits(|it| Some(it.max_open));
    let values = Values::new(intent.id, &intent.origin);
    let values = values.and(&[
        &slot,
        &parameters,
        &call,
        &due_at,
        &policies,
        &keys,
        &max_bytes,
        &max_images,
        &max_open,
    ]);
    let rows = statements.query(&BEGIN, &values).await?;
    let missing = || StoreFault::Refused("the answer is empty".to_owned());
    begun(rows.first().ok_or_else(missing)?, intent)
}

/// An intent that is missing is counted, whether it fits or not. One that is not keeps its counters.
pub(super) async fn complete(
    statements: &Statements,
    intent: &Intent,
    image: &ImageId,
    follow_at: Timestamp,
) -> Run<Completed> {
    const COMPLETE: Sql = Sql {
        text: "\
            insert into imgwire_gate.upload as upload (\
                id, subject, workspace, route, purpose, mime_type, size, created_at, \
                slot, parameters, image, follow_at, storage_policies, storage_keys, state, exists_now\
            ) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 'open', true) \
            on conflict (id) do update \
            set image = excluded.image, exists_now = true, call = null, due_at = null, \
                slot = excluded.slot, parameters = excluded.parameters, \
                follow_at = excluded.follow_at, state = 'open' \
            where upload.state = 'requested' \
            returning true",
        types: insert_types!(
            Type::BYTEA,
            Type::BYTEA,
            Type::TEXT,
            Type::TIMESTAMPTZ,
            Type::TEXT_ARRAY,
            Type::TEXT_ARRAY
        ),
    };
    let (image, follow_at) = (image.as_str(), system_time(follow_at));
    let counters = NamedCounters::of(intent);
    let (policies, keys) = counters.names();
    let complete = async |found: Option<&Replay>| {
        let (slot, parameters) = replay(found);
        let values = Values::new(intent.id, &intent.origin);
        let values = values.and(&[&slot, &parameters, &image, &follow_at, &policies, &keys]);
        statements.query(&COMPLETE, &values).await
    };
    let completed = match complete(intent.replay.as_ref()).await {
        // The intent is missing, and another upload has its slot.
        Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => complete(None).await,
        completed => completed,
    };
    if !completed?.is_empty() {
        return Ok(Completed::Now);
    }
    const NAMES: Sql = Sql {
        text: "select from imgwire_gate.upload where id = $1 and exists_now and image = $2",
        types: &[Type::UUID, Type::TEXT],
    };
    let names = statements.query(&NAMES, &[&intent.id.0, &image]).await?;
    Ok(match names.is_empty() {
        true => Completed::Never,
        false => Completed::Before,
    })
}

pub(super) async fn withdraw(statements: &Statements, id: RecordId) -> Run<()> {
    const WITHDRAW: Sql = Sql {
        text: "delete from imgwire_gate.upload where id = $1 and state = 'requested'",
        types: &[Type::UUID],
    };
    statements.query(&WITHDRAW, &[&id.0]).await?;
    Ok(())
}

/// A row that another gate is taking is passed over.
pub(super) async fn take_due(
    statements: &Statements,
    now: Timestamp,
    next: Timestamp,
    limit: u32,
) -> Run<Vec<Intent>> {
    const TAKE: Sql = Sql {
        text: "\
            with due as (\
                select id as due_id from imgwire_gate.upload where due_at <= $1 \
                and (slot is not null or call not in (\
                    select original.call from imgwire_gate.upload original \
                    where original.due_at is not null and original.slot is not null \
                    and original.call is not null\
                )) \
                order by due_at limit $3 for update skip locked\
            ) \
            update imgwire_gate.upload set due_at = $2 from due where id = due_id \
            returning id, subject, workspace, route, purpose, mime_type, size, created_at, \
                      slot, parameters, due_at, call",
        types: &[Type::TIMESTAMPTZ, Type::TIMESTAMPTZ, Type::INT8],
    };
    let (now, next, limit) = (system_time(now), system_time(next), i64::from(limit));
    let rows = statements.query(&TAKE, &[&now, &next, &limit]).await?;
    Ok(rows.iter().map(intent).collect::<Result<_, _>>()?)
}

pub(super) async fn issued(
    statements: &Statements,
    id: RecordId,
    origin: &Origin,
    token: &TokenId,
) -> Run<()> {
    const ISSUED: Sql = Sql {
        text: "\
            insert into imgwire_gate.upload (\
                id, subject, workspace, route, purpose, mime_type, size, created_at, \
                token, state, exists_now\
            ) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'issued', false) \
            on conflict do nothing",
        types: insert_types!(Type::TEXT),
    };
    let token = token.as_str();
    let values = Values::new(id, origin);
    statements.query(&ISSUED, &values.and(&[&token])).await?;
    Ok(())
}

/// A token that already led to an image keeps it.
pub(super) async fn link(statements: &Statements, id: RecordId, image: &ImageId) -> Run<()> {
    const LINK: Sql = Sql {
        text: "update imgwire_gate.upload set image = $2, exists_now = true, state = 'open' \
               where id = $1 and state = 'issued'",
        types: &[Type::UUID, Type::TEXT],
    };
    let image = image.as_str();
    statements.query(&LINK, &[&id.0, &image]).await?;
    Ok(())
}

/// What Imgwire does not report stays as it was.
pub(super) async fn settle(
    statements: &Statements,
    id: RecordId,
    state: UploadState,
    real: &FileFacts,
    events: &[NewEvent],
) -> Run<bool> {
    const SETTLE: Sql = Sql {
        text: concat!(
            "with before as (\
                select id as before_id, state <> $5 as is_change from imgwire_gate.upload \
                where id = $1 and exists_now for update\
            ), changed as (\
                update imgwire_gate.upload \
                set state = $5, real_mime_type = coalesce($6, real_mime_type), \
                    real_size = coalesce($7, real_size), \
                    follow_at = case when $5 = 'open' then follow_at end, \
                    events = events + case when is_change then cardinality($2) else 0 end \
                from before where id = before_id returning id, is_change, events\
            ), ",
            add_events!(),
            " select is_change from changed"
        ),
        types: change_types!(Type::TEXT, Type::TEXT, Type::INT8),
    };
    let (state, mime_type): (&str, _) = (state.into(), text(real.mime_type.as_ref()));
    let size = real.size.map(number);
    let events = EventValues::new(events);
    let values = events.and(&id.0, &[&state, &mime_type, &size]);
    let rows = statements.query(&SETTLE, &values).await?;
    Ok(rows.first().map_or(Ok(false), |row| get(row, 0))?)
}

pub(super) async fn delete(
    statements: &Statements,
    id: RecordId,
    ending: Ending,
    at: Timestamp,
    events: &[NewEvent],
) -> Run<bool> {
    const DELETE: Sql = Sql {
        text: concat!(
            "with changed as (\
                update imgwire_gate.upload \
                set state = $5, exists_now = false, deleted_at = $6, slot = null, \
                    parameters = null, call = null, due_at = null, follow_at = null, \
                    events = events + cardinality($2) \
                where id = $1 and deleted_at is null returning id, true as is_change, events\
            ), ",
            add_events!(),
            " select is_change from changed"
        ),
        types: change_types!(Type::TEXT, Type::TIMESTAMPTZ),
    };
    let (state, at): (&str, _) = (UploadState::from(ending).into(), system_time(at));
    let events = EventValues::new(events);
    let values = events.and(&id.0, &[&state, &at]);
    Ok(!statements.query(&DELETE, &values).await?.is_empty())
}

pub(super) async fn remove(statements: &Statements, id: RecordId) -> Run<()> {
    const REMOVE: Sql = Sql {
        text: "delete from imgwire_gate.upload where id = $1",
        types: &[Type::UUID],
    };
    statements.query(&REMOVE, &[&id.0]).await?;
    Ok(())
}

pub(super) async fn remove_old(statements: &Statements, before: Timestamp, limit: u32) -> Run<u64> {
    const REMOVE_OLD: Sql = Sql {
        text: "\
            delete from imgwire_gate.upload where id in (\
                select id from imgwire_gate.upload \
                where deleted_at < $1 or (token is not null and image is null and created_at < $1) \
                limit $2 for update skip locked\
            ) returning true",
        types: &[Type::TIMESTAMPTZ, Type::INT8],
    };
    let (before, limit) = (system_time(before), i64::from(limit));
    let rows = statements.query(&REMOVE_OLD, &[&before, &limit]).await?;
    Ok(rows.len() as u64)
}
