//! How records are stored.

use std::sync::Arc;

use jiff::Timestamp;
use policies::{ImageId, Purpose, RoutePath, SubjectId, TokenId, WorkspaceId};
use rusqlite::{
    Result, Row, ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, Type, ValueRef},
};
use uuid::Uuid;

use crate::stores::records::{FileFacts, Intent, Origin, Record, RecordId, Replay, UploadState};

/// Intents have a table of their own, so that a record is written once, when its image is known, and stays as it is. The
/// rows of records are in the order of their ids, so new ones fill the last pages of the table.
pub(super) const CREATE: &str = "
CREATE TABLE IF NOT EXISTS upload_intents (
    id BLOB PRIMARY KEY,
    subject ANY NOT NULL,
    workspace ANY,
    route TEXT NOT NULL,
    purpose TEXT,
    mime_type TEXT,
    size INTEGER,
    created_at INTEGER NOT NULL, -- microseconds since 1970
    slot BLOB,
    parameters BLOB,
    due_at INTEGER NOT NULL,
    call TEXT NOT NULL,
    counters TEXT -- of storage
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS upload_intents_slot ON upload_intents (slot) WHERE slot IS NOT NULL;
CREATE INDEX IF NOT EXISTS upload_intents_due ON upload_intents (due_at);

CREATE TABLE IF NOT EXISTS upload_records (
    id BLOB PRIMARY KEY,
    subject ANY NOT NULL,
    workspace ANY,
    route TEXT NOT NULL,
    purpose TEXT,
    mime_type TEXT,
    size INTEGER,
    created_at INTEGER NOT NULL,
    slot BLOB,
    parameters BLOB,
    image ANY,
    token ANY,
    real_mime_type TEXT,
    real_size INTEGER,
    state INTEGER NOT NULL,
    exists_now INTEGER NOT NULL, -- 1 if the image is known and was not deleted
    deleted_at INTEGER,
    counters TEXT, -- of storage
    follow_at INTEGER, -- NULL unless the upload is followed
    events INTEGER -- how many there were
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS upload_records_deleted ON upload_records (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS upload_records_issued ON upload_records (created_at) WHERE token IS NOT NULL AND image IS NULL;

CREATE TABLE IF NOT EXISTS upload_erasures (
    id BLOB PRIMARY KEY,
    subject ANY, -- NULL once it is done
    until BLOB NOT NULL,
    taken_until INTEGER NOT NULL,
    done_at INTEGER,
    deleted INTEGER NOT NULL,
    failed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS upload_secret (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    secret BLOB NOT NULL
) STRICT;
";

/// Of a column that old files lack at first.
pub(super) const CREATE_INDEX: &str = "
CREATE INDEX IF NOT EXISTS upload_records_followed ON upload_records (follow_at) WHERE follow_at IS NOT NULL;
";

/// The columns of [`record`].
pub(super) const RECORD: &str = "id, subject, workspace, route, purpose, mime_type, size, created_at, \
                                 image, token, real_mime_type, real_size, state, deleted_at";

/// The columns of [`record`] in the table of intents.
pub(super) const INTENT_AS_RECORD: &str = "id, subject, workspace, route, purpose, mime_type, size, created_at, \
                                           NULL, NULL, NULL, NULL, 1, NULL";

/// The columns of [`intent`].
pub(super) const INTENT: &str = "id, subject, workspace, route, purpose, mime_type, size, created_at, \
                                 slot, parameters, due_at, call";

const STATES: [UploadState; 7] = [
    UploadState::Issued,
    UploadState::Requested,
    UploadState::Open,
    UploadState::Ready,
    UploadState::Quarantined,
    UploadState::Deleted,
    UploadState::Abandoned,
];

/// A state as its index in [`STATES`].
pub(super) struct StateCode(pub(super) UploadState);

impl ToSql for StateCode {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        let index = STATES.iter().position(|state| *state == self.0);
        Ok(ToSqlOutput::from(index.map_or(-1, |index| index as i64)))
    }
}

impl FromSql for StateCode {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let index = value.as_i64()?;
        let state = usize::try_from(index).ok().and_then(|it| STATES.get(it));
        state
            .map(|state| Self(*state))
            .ok_or(FromSqlError::OutOfRange(index))
    }
}

/// An identifier. A UUID in lower case is stored as its 16 bytes, anything else as text.
pub(super) enum Id<'a> {
    Uuid(Uuid),
    Text(&'a str),
}

impl<'a> Id<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let has_upper_case = || text.bytes().any(|byte| byte.is_ascii_uppercase());
        match Uuid::try_parse(text) {
            // With hyphens.
            Ok(uuid) if text.len() == 36 && !has_upper_case() => Self::Uuid(uuid),
            _ => Self::Text(text),
        }
    }
}

impl ToSql for Id<'_> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Uuid(uuid) => ToSqlOutput::from(uuid.as_bytes().as_slice()),
            Self::Text(text) => ToSqlOutput::from(*text),
        })
    }
}

/// The text of an [`Id`].
pub(super) struct IdText(pub(super) String);

impl FromSql for IdText {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Text(_) => Ok(Self(value.as_str()?.to_owned())),
            _ => Ok(Self(
                Uuid::from_bytes(FromSql::column_result(value)?).to_string(),
            )),
        }
    }
}

impl ToSql for RecordId {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.as_bytes().as_slice()))
    }
}

impl FromSql for RecordId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(Self(Uuid::from_bytes(FromSql::column_result(value)?)))
    }
}

/// A size beyond SQLite's integers is no size of a file.
pub(super) fn size(file: &FileFacts) -> Option<i64> {
    let size = |size| i64::try_from(size).unwrap_or(i64::MAX);
    file.size.map(size)
}

/// A time in microseconds since 1970.
pub(super) struct Micros(pub(super) Timestamp);

impl ToSql for Micros {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.as_microsecond()))
    }
}

impl FromSql for Micros {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let micros = value.as_i64()?;
        let time = Timestamp::from_microsecond(micros);
        time.map(Self).map_err(|_| FromSqlError::OutOfRange(micros))
    }
}

fn parsed<T, E: std::error::Error + Send + Sync + 'static>(
    column: usize,
    value: std::result::Result<T, E>,
) -> Result<T> {
    value.map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}

fn subject(row: &Row<'_>, column: usize) -> Result<SubjectId> {
    let IdText(text) = row.get(column)?;
    parsed(column, SubjectId::parse(&text))
}

fn origin(row: &Row<'_>) -> Result<Origin> {
    let workspace: Option<IdText> = row.get(2)?;
    let purpose: Option<String> = row.get(4)?;
    let size: Option<i64> = row.get(6)?;
    let Micros(created_at) = row.get(7)?;
    let workspace = workspace.map(|IdText(text)| parsed(2, WorkspaceId::parse(&text)));
    let purpose = purpose.map(|text| parsed(4, Purpose::parse(&text)));
    Ok(Origin {
        subject: subject(row, 1)?,
        workspace: workspace.transpose()?,
        route: parsed(3, RoutePath::parse(row.get_ref(3)?.as_str()?))?,
        purpose: purpose.transpose()?,
        declared: FileFacts {
            mime_type: row.get(5)?,
            size: size.and_then(|size| u64::try_from(size).ok()),
        },
        created_at,
    })
}

/// Reads the columns [`RECORD`].
pub(super) fn record(row: &Row<'_>) -> Result<Record> {
    let token: Option<IdText> = row.get(9)?;
    let real_size: Option<i64> = row.get(11)?;
    let StateCode(state) = row.get(12)?;
    let deleted_at: Option<Micros> = row.get(13)?;
    Ok(Record {
        id: row.get(0)?,
        origin: origin(row)?,
        image: image(row, 8)?,
        token: token.and_then(|IdText(token)| TokenId::parse(&token)),
        real: FileFacts {
            mime_type: row.get(10)?,
            size: real_size.and_then(|size| u64::try_from(size).ok()),
        },
        state,
        deleted_at: deleted_at.map(|Micros(time)| time),
    })
}

pub(super) fn image(row: &Row<'_>, column: usize) -> Result<Option<ImageId>> {
    let image: Option<IdText> = row.get(column)?;
    Ok(image.and_then(|IdText(image)| ImageId::parse(&image)))
}

/// Reads the columns [`INTENT`].
pub(super) fn intent(row: &Row<'_>) -> Result<Intent> {
    let (slot, parameters) = (digest(row, 8)?, digest(row, 9)?);
    let Micros(due_at) = row.get(10)?;
    Ok(Intent {
        id: row.get(0)?,
        origin: origin(row)?,
        replay: slot
            .zip(parameters)
            .map(|(slot, parameters)| Replay { slot, parameters }),
        call: row.get_ref(11)?.as_str()?.into(),
        charges: Arc::default(),
        due_at,
    })
}

pub(super) fn digest(row: &Row<'_>, column: usize) -> Result<Option<[u8; 32]>> {
    row.get(column)
}

pub(super) fn erased_subject(row: &Row<'_>, column: usize) -> Result<SubjectId> {
    subject(row, column)
}
