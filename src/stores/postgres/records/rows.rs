//! How records are read from rows.

use std::sync::Arc;

use policies::{ImageId, Purpose, RoutePath, SubjectId, TokenId, WorkspaceId};
use tokio_postgres::{
    Error, Row,
    types::{FromSql, ToSql},
};

use super::super::statements::timestamp;
use crate::stores::{
    fault::StoreFault,
    records::{FileFacts, Intent, Origin, Record, RecordId, Replay, UploadState},
};

/// The columns of [`record`].
macro_rules! record_columns {
    () => {
        "id, subject, workspace, route, purpose, mime_type, size, created_at, \
         image, token, real_mime_type, real_size, state, deleted_at"
    };
}
pub(super) use record_columns;

type Result<T> = std::result::Result<T, StoreFault>;

pub(super) type Parameter<'a> = &'a (dyn ToSql + Sync);

/// Why a statement has no result.
pub(super) enum RunError {
    Server(Error),
    Answer(StoreFault),
}

pub(super) type Run<T> = std::result::Result<T, RunError>;

impl From<Error> for RunError {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

impl From<StoreFault> for RunError {
    fn from(fault: StoreFault) -> Self {
        Self::Answer(fault)
    }
}

fn invalid(error: impl ToString) -> StoreFault {
    StoreFault::Refused(error.to_string())
}

pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T> {
    row.try_get(column).map_err(invalid)
}

pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(row: &Row, column: usize) -> Result<u64> {
    Ok(get::<i64>(row, column)?.try_into().unwrap_or_default())
}

/// Text without zero bytes, which `text` cannot hold.
pub(super) fn text(text: Option<&String>) -> Option<String> {
    text.map(|text| text.replace('\0', ""))
}

fn file(row: &Row, mime_type: usize, size: usize) -> Result<FileFacts> {
    let size: Option<i64> = get(row, size)?;
    Ok(FileFacts {
        mime_type: get(row, mime_type)?,
        size: size.and_then(|size| u64::try_from(size).ok()),
    })
}

fn origin(row: &Row) -> Result<Origin> {
    let workspace: Option<&str> = get(row, 2)?;
    let purpose: Option<&str> = get(row, 4)?;
    let workspace = workspace.map(WorkspaceId::parse).transpose();
    let purpose = purpose.map(Purpose::parse).transpose();
    Ok(Origin {
        subject: subject(row, 1)?,
        workspace: workspace.map_err(invalid)?,
        route: RoutePath::parse(get(row, 3)?).map_err(invalid)?,
        purpose: purpose.map_err(invalid)?,
        declared: file(row, 5, 6)?,
        created_at: timestamp(get(row, 7)?),
    })
}

pub(super) fn subject(row: &Row, column: usize) -> Result<SubjectId> {
    SubjectId::parse(get(row, column)?).map_err(invalid)
}

pub(super) fn image(row: &Row, column: usize) -> Result<Option<ImageId>> {
    let image: Option<&str> = get(row, column)?;
    Ok(image.and_then(ImageId::parse))
}

/// Reads the columns [`record_columns`].
pub(super) fn record(row: &Row) -> Result<Record> {
    let token: Option<&str> = get(row, 9)?;
    let state: &str = get(row, 12)?;
    let deleted_at: Option<_> = get(row, 13)?;
    Ok(Record {
        id: RecordId(get(row, 0)?),
        origin: origin(row)?,
        image: image(row, 8)?,
        token: token.and_then(TokenId::parse),
        real: file(row, 10, 11)?,
        state: state.parse::<UploadState>().map_err(invalid)?,
        deleted_at: deleted_at.map(timestamp),
    })
}

/// Reads the same columns of an origin, then the slot, the parameters, the time and the call.
pub(super) fn intent(row: &Row) -> Result<Intent> {
    let (slot, parameters) = (digest(row, 8)?, digest(row, 9)?);
    let replay = slot.zip(parameters);
    Ok(Intent {
        id: RecordId(get(row, 0)?),
        origin: origin(row)?,
        replay: replay.map(|(slot, parameters)| Replay { slot, parameters }),
        charges: Arc::default(),
        due_at: timestamp(get(row, 10)?),
        call: get::<&str>(row, 11)?.into(),
    })
}

pub(super) fn digest(row: &Row, column: usize) -> Result<Option<[u8; 32]>> {
    let bytes: Option<&[u8]> = get(row, column)?;
    let digest = bytes.map(<[u8; 32]>::try_from).transpose();
    digest.map_err(invalid)
}
