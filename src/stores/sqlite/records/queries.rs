//! What is read from records.

use policies::ImageId;
use rusqlite::{Connection, OptionalExtension as _, Result, ToSql, params};
use uuid::Uuid;

use super::{
    keys::{Lookup, NewKeys, unkeyed},
    rows::{INTENT_AS_RECORD, Id, RECORD, image, record},
};
use crate::stores::records::{Earlier, Holder, ImagePage, Page, Record, RecordId, RecordQuery};

/// The ids of the records that may have the key ?1, of which ?2 are in memory.
const CANDIDATES: &str = "
    SELECT id FROM upload_keys WHERE hash = ?1 UNION SELECT unhex(value) FROM json_each(?2)";

/// What is read from.
pub(in crate::stores) struct View<'a> {
    pub(in crate::stores) connection: &'a Connection,
    /// None if another process may write the file.
    pub(in crate::stores) new_keys: Option<&'a NewKeys>,
}

impl View<'_> {
    /// The ids of the records that may have a key which is not written, as a JSON array of hexadecimal texts. They are read
    /// before the file, because they leave the memory once they are in the file.
    fn new_ids(&self, hash: i64) -> Result<String> {
        let ids = match self.new_keys {
            Some(keys) => keys.ids(hash),
            None => unkeyed(self.connection)?,
        };
        let ids = ids
            .iter()
            .map(|RecordId(id)| format!("\"{}\"", id.simple()));
        Ok(format!("[{}]", ids.collect::<Vec<_>>().join(",")))
    }
}

pub(super) fn replayed(view: &View<'_>, slot: &[u8; 32]) -> Result<Option<Earlier>> {
    let hash = Lookup::Slot(slot).hash();
    let find = format!(
        "SELECT id, image, parameters, NULL FROM ({CANDIDATES}) JOIN upload_records USING (id)
         WHERE slot = ?3
         UNION ALL
         SELECT id, NULL, parameters, call FROM upload_intents WHERE slot = ?3"
    );
    let values = params![hash, view.new_ids(hash)?, slot];
    let mut find = view.connection.prepare_cached(&find)?;
    let earlier = find.query_row(values, |row| {
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

pub(super) fn by_image(view: &View<'_>, image: &ImageId) -> Result<Option<Record>> {
    let hash = Lookup::Image(image).hash();
    let find = format!(
        "SELECT {RECORD} FROM ({CANDIDATES}) JOIN upload_records USING (id)
         WHERE image = ?3 AND exists_now ORDER BY id DESC LIMIT 1"
    );
    let values = params![hash, view.new_ids(hash)?, Id::new(image.as_str())];
    let mut find = view.connection.prepare_cached(&find)?;
    find.query_row(values, record).optional()
}

/// The total is counted in the index, without the records.
pub(super) fn images(view: &View<'_>, holder: &Holder, page: Page) -> Result<ImagePage> {
    let (lookup, condition, id) = match holder {
        Holder::Workspace(id) => (Lookup::Workspace(id), "workspace = ?3", id.as_str()),
        Holder::Subject(id) => (
            Lookup::Subject(id),
            "subject = ?3 AND workspace IS NULL",
            id.as_str(),
        ),
    };
    let hash = lookup.hash();
    let (new, id) = (view.new_ids(hash)?, Id::new(id));
    const LISTED: &str = "SELECT id FROM upload_keys WHERE hash = ?1 AND is_listed = 1";
    let new_listed = format!(
        "SELECT DISTINCT upload_records.id FROM json_each(?2) JOIN upload_records ON upload_records.id = unhex(value)
         WHERE {condition} AND exists_now"
    );
    let count = format!(
        "SELECT (SELECT count(*) FROM ({LISTED}))
              + (SELECT count(*) FROM ({new_listed}) AS new
                 WHERE NOT EXISTS ({LISTED} AND upload_keys.id = new.id))"
    );
    let total: i64 = view
        .connection
        .prepare_cached(&count)?
        .query_row(params![hash, new, id], |row| row.get(0))?;
    let list = format!(
        "WITH page (id) AS ({LISTED} UNION {new_listed} ORDER BY 1 DESC LIMIT ?4 OFFSET ?5)
         SELECT image FROM page JOIN upload_records USING (id) WHERE {condition} ORDER BY id DESC"
    );
    let mut list = view.connection.prepare_cached(&list)?;
    let values = params![hash, new, id, page.size, offset(page)];
    let images = list.query_map(values, |row| image(row, 0))?;
    Ok(ImagePage {
        images: images
            .filter_map(Result::transpose)
            .collect::<Result<_>>()?,
        total: u64::try_from(total).unwrap_or_default(),
    })
}

pub(super) fn find(view: &View<'_>, query: &RecordQuery, page: Page) -> Result<Vec<Record>> {
    let RecordQuery {
        image,
        token,
        subject,
        workspace,
    } = query;
    // The first one finds the fewest records.
    let lookups = [
        image.as_ref().map(Lookup::Image),
        token.as_ref().map(Lookup::Token),
        subject.as_ref().map(Lookup::Subject),
        workspace.as_ref().map(Lookup::Workspace),
    ];
    let hash = lookups.into_iter().flatten().next().map(Lookup::hash);
    let new = hash.map(|hash| view.new_ids(hash)).transpose()?;
    let mut values: Vec<&dyn ToSql> = vec![&hash, &new];
    let conditions = [
        ("image", image.as_ref().map(|it| Id::new(it.as_str()))),
        ("token", token.as_ref().map(|it| Id::new(it.as_str()))),
        ("subject", subject.as_ref().map(|it| Id::new(it.as_str()))),
        (
            "workspace",
            workspace.as_ref().map(|it| Id::new(it.as_str())),
        ),
    ];
    let mut condition = "TRUE".to_owned();
    for (column, id) in &conditions {
        if let Some(id) = id {
            values.push(id);
            condition += &format!(" AND {column} = ?{}", values.len());
        }
    }
    let candidates = match hash {
        Some(_) => format!("({CANDIDATES}) JOIN upload_records USING (id)"),
        None => "upload_records".to_owned(),
    };
    let mut find = format!("SELECT {RECORD} FROM {candidates} WHERE {condition}");
    // An intent has neither.
    if image.is_none() && token.is_none() {
        find +=
            &format!(" UNION ALL SELECT {INTENT_AS_RECORD} FROM upload_intents WHERE {condition}");
    }
    let (size, skipped) = (page.size, offset(page));
    values.extend([&size as &dyn ToSql, &skipped]);
    let (limit, offset) = (values.len() - 1, values.len());
    find += &format!(" ORDER BY id DESC LIMIT ?{limit} OFFSET ?{offset}");
    let mut find = view.connection.prepare_cached(&find)?;
    find.query_map(&*values, record)?.collect()
}

pub(super) fn export(view: &View<'_>, after: Option<RecordId>, limit: u32) -> Result<Vec<Record>> {
    let export = format!(
        "SELECT {RECORD} FROM upload_records WHERE id > ?1
         UNION ALL SELECT {INTENT_AS_RECORD} FROM upload_intents WHERE id > ?1
         ORDER BY id LIMIT ?2"
    );
    let after = after.unwrap_or(RecordId(Uuid::nil()));
    let mut export = view.connection.prepare_cached(&export)?;
    export.query_map(params![after, limit], record)?.collect()
}

fn offset(page: Page) -> i64 {
    let offset = page
        .number
        .saturating_sub(1)
        .saturating_mul(page.size.into());
    i64::try_from(offset).unwrap_or(i64::MAX)
}
