//! What is read from records.

use policies::ImageId;
use tokio_postgres::types::{ToSql, Type};

use super::{
    super::statements::{Sql, Statements},
    rows::{Run, digest, get, image, number, record, record_columns, unsigned},
};
use crate::stores::records::{Earlier, Holder, ImagePage, Page, Record, RecordId, RecordQuery};

pub(super) async fn replayed(statements: &Statements, slot: [u8; 32]) -> Run<Option<Earlier>> {
    const FIND: Sql = Sql {
        text: "select id, image, parameters, call from imgwire_gate.upload where slot = $1",
        types: &[Type::BYTEA],
    };
    let rows = statements.query(&FIND, &[&slot.as_slice()]).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let call: Option<&str> = get(row, 3)?;
    Ok(Some(Earlier {
        id: RecordId(get(row, 0)?),
        image: image(row, 1)?,
        parameters: digest(row, 2)?.unwrap_or_default(),
        call: call.map(Into::into),
    }))
}

pub(super) async fn by_image(statements: &Statements, image: &ImageId) -> Run<Option<Record>> {
    const FIND: Sql = Sql {
        text: concat!(
            "select ",
            record_columns!(),
            " from imgwire_gate.upload where image = $1 and exists_now order by id desc limit 1"
        ),
        types: &[Type::TEXT],
    };
    let rows = statements.query(&FIND, &[&image.as_str()]).await?;
    Ok(rows.first().map(record).transpose()?)
}

/// The total is counted in an index, without the records.
pub(super) async fn images(statements: &Statements, holder: &Holder, page: Page) -> Run<ImagePage> {
    macro_rules! list {
        ($condition:literal) => {
            concat!(
                "select (select count(*) from imgwire_gate.upload where ",
                $condition,
                "), array(select image from imgwire_gate.upload where ",
                $condition,
                " order by id desc limit $2 offset $3)"
            )
        };
    }
    const TYPES: &[Type] = &[Type::TEXT, Type::INT8, Type::INT8];
    const OF_WORKSPACE: Sql = Sql {
        text: list!("workspace = $1 and exists_now"),
        types: TYPES,
    };
    const OF_SUBJECT: Sql = Sql {
        text: list!("subject = $1 and workspace is null and exists_now"),
        types: TYPES,
    };
    let (list, id) = match holder {
        Holder::Workspace(id) => (&OF_WORKSPACE, id.as_str()),
        Holder::Subject(id) => (&OF_SUBJECT, id.as_str()),
    };
    let (limit, offset) = (i64::from(page.size), offset(page));
    let rows = statements.query(list, &[&id, &limit, &offset]).await?;
    let Some(row) = rows.first() else {
        return Ok(ImagePage::default());
    };
    let images: Vec<&str> = get(row, 1)?;
    Ok(ImagePage {
        images: images.into_iter().filter_map(ImageId::parse).collect(),
        total: unsigned(row, 0)?,
    })
}

/// The server plans it for the values, so that a part without one costs nothing.
pub(super) async fn find(
    statements: &Statements,
    query: &RecordQuery,
    page: Page,
) -> Run<Vec<Record>> {
    const FIND: Sql = Sql {
        text: concat!(
            "select ",
            record_columns!(),
            " from imgwire_gate.upload \
             where ($1 is null or image = $1) and ($2 is null or token = $2) \
               and ($3 is null or subject = $3) and ($4 is null or workspace = $4) \
             order by id desc limit $5 offset $6"
        ),
        types: &[
            Type::TEXT,
            Type::TEXT,
            Type::TEXT,
            Type::TEXT,
            Type::INT8,
            Type::INT8,
        ],
    };
    let (limit, offset) = (i64::from(page.size), offset(page));
    let values: &[&(dyn ToSql + Sync)] = &[
        &query.image.as_ref().map(|it| it.as_str()),
        &query.token.as_ref().map(|it| it.as_str()),
        &query.subject.as_ref().map(|it| it.as_str()),
        &query.workspace.as_ref().map(|it| it.as_str()),
        &limit,
        &offset,
    ];
    let rows = statements.query(&FIND, values).await?;
    Ok(rows.iter().map(record).collect::<Result<_, _>>()?)
}

pub(super) async fn export(
    statements: &Statements,
    after: Option<RecordId>,
    limit: u32,
) -> Run<Vec<Record>> {
    const EXPORT: Sql = Sql {
        text: concat!(
            "select ",
            record_columns!(),
            " from imgwire_gate.upload where $1 is null or id > $1 order by id limit $2"
        ),
        types: &[Type::UUID, Type::INT8],
    };
    let (after, limit) = (after.map(|it| it.0), i64::from(limit));
    let rows = statements.query(&EXPORT, &[&after, &limit]).await?;
    Ok(rows.iter().map(record).collect::<Result<_, _>>()?)
}

fn offset(page: Page) -> i64 {
    number(
        page.number
            .saturating_sub(1)
            .saturating_mul(page.size.into()),
    )
}
