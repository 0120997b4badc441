//! What is read from records.

use policies::ImageId;
use rusqlite::{Connection, OptionalExtension as _, Result, ToSql, params};
use uuid::Uuid;

use super::rows::{INTENT_AS_RECORD, Id, RECORD, image, record};
use crate::stores::records::{Earlier, Holder, ImagePage, Page, Record, RecordId, RecordQuery};

pub(super) fn replayed(connection: &Connection, slot: &[u8; 32]) -> Result<Option<Earlier>> {
    let find = "SELECT id, image, parameters, NULL FROM upload_records WHERE slot = ?1
                UNION ALL
                SELECT id, NULL, parameters, call FROM upload_intents WHERE slot = ?1";
    let earlier = connection.prepare_cached(find)?.query_row([slot], |row| {
        let call: Option<String> = row.get(3)?;
        Ok(Earlier {
            id: row.get(0)?,
            image: image(row, 1)?,
            parameters: row.get(2)?,
            call: call.map(Into::into),
        })
    });
    earlier.optional()
}

pub(super) fn by_image(connection: &Connection, image: &ImageId) -> Result<Option<Record>> {
    let find = format!(
        "SELECT {RECORD} FROM upload_records WHERE image = ? AND exists_now ORDER BY id DESC LIMIT 1"
    );
    let mut find = connection.prepare_cached(&find)?;
    find.query_row([Id::new(image.as_str())], record).optional()
}

/// The total is counted in an index, without the records.
pub(super) fn images(connection: &Connection, holder: &Holder, page: Page) -> Result<ImagePage> {
    let (condition, id) = match holder {
        Holder::Workspace(id) => ("workspace = ?1 AND exists_now = 1", id.as_str()),
        Holder::Subject(id) => (
            "subject = ?1 AND workspace IS NULL AND exists_now = 1",
            id.as_str(),
        ),
    };
    let id = Id::new(id);
    let count = format!("SELECT count(*) FROM upload_records WHERE {condition}");
    let total: i64 = connection
        .prepare_cached(&count)?
        .query_row([&id], |row| row.get(0))?;
    let list = format!(
        "SELECT image FROM upload_records WHERE {condition} ORDER BY id DESC LIMIT ?2 OFFSET ?3"
    );
    let mut list = connection.prepare_cached(&list)?;
    let images = list.query_map(params![id, page.size, offset(page)], |row| image(row, 0))?;
    Ok(ImagePage {
        images: images
            .filter_map(Result::transpose)
            .collect::<Result<_>>()?,
        total: u64::try_from(total).unwrap_or_default(),
    })
}

pub(super) fn find(
    connection: &Connection,
    query: &RecordQuery,
    page: Page,
) -> Result<Vec<Record>> {
    let conditions = [
        ("image", query.image.as_ref().map(|it| it.as_str())),
        ("token", query.token.as_ref().map(|it| it.as_str())),
        ("subject", query.subject.as_ref().map(|it| it.as_str())),
        ("workspace", query.workspace.as_ref().map(|it| it.as_str())),
    ];
    let mut condition = "TRUE".to_owned();
    let mut ids = Vec::new();
    for (column, id) in conditions {
        if let Some(id) = id {
            ids.push(Id::new(id));
            condition += &format!(" AND {column} = ?{}", ids.len());
        }
    }
    let mut find = format!("SELECT {RECORD} FROM upload_records WHERE {condition}");
    // An intent has neither.
    if query.image.is_none() && query.token.is_none() {
        find +=
            &format!(" UNION ALL SELECT {INTENT_AS_RECORD} FROM upload_intents WHERE {condition}");
    }
    let (limit, offset) = (ids.len() + 1, ids.len() + 2);
    find += &format!(" ORDER BY id DESC LIMIT ?{limit} OFFSET ?{offset}");
    let (size, skipped) = (page.size, self::offset(page));
    let mut values: Vec<&dyn ToSql> = ids.iter().map(|id| id as _).collect();
    values.extend([&size as &dyn ToSql, &skipped]);
    let mut find = connection.prepare_cached(&find)?;
    find.query_map(&*values, record)?.collect()
}

pub(super) fn export(
    connection: &Connection,
    after: Option<RecordId>,
    limit: u32,
) -> Result<Vec<Record>> {
    let export = format!(
        "SELECT {RECORD} FROM upload_records WHERE id > ?1
         UNION ALL SELECT {INTENT_AS_RECORD} FROM upload_intents WHERE id > ?1
         ORDER BY id LIMIT ?2"
    );
    let after = after.unwrap_or(RecordId(Uuid::nil()));
    let mut export = connection.prepare_cached(&export)?;
    export.query_map(params![after, limit], record)?.collect()
}

fn offset(page: Page) -> i64 {
    let offset = page
        .number
        .saturating_sub(1)
        .saturating_mul(page.size.into());
    i64::try_from(offset).unwrap_or(i64::MAX)
}
