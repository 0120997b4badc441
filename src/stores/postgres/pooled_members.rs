//! Membership queries through a pooler.
//!
//! The parameters have no type, so the server infers their types from the query as it does for literals, and no
//! statement is prepared. tokio-postgres would prepare one to learn of a column's type that is not built in, such as an
//! enum. So the query is wrapped in one that returns texts, and the types by number.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio_postgres::{
    Client, Error, Row,
    types::{Kind, Oid, ToSql, Type},
};

use super::{
    transaction::{Access, begin, in_transaction},
    types::{Literal, check_columns},
};
use crate::stores::{
    fault::StoreFault,
    kind::{MAX_ROWS, MemberRow, workspace_id},
};

/// The types of columns that are not built in. They are the same on all connections.
#[derive(Default)]
pub(super) struct ColumnTypes(Mutex<HashMap<Oid, Type>>);

const MAX_TYPES: usize = 64;

/// A transaction that only reads, and runs no longer than `timeout`.
pub(super) struct Transaction<'a> {
    client: &'a Client,
    begin: String,
    types: &'a ColumnTypes,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(
        client: &'a Client,
        search_path: Option<&str>,
        timeout: Duration,
        types: &'a ColumnTypes,
    ) -> Self {
        Self {
            client,
            begin: begin(Access::Read { search_path }, timeout),
            types,
        }
    }

    /// Returns at most [`MAX_ROWS`] rows, or what is wrong with them.
    pub(super) async fn members(
        &self,
        query: &str,
        [user, workspace]: [&str; 2],
    ) -> Result<Result<Vec<MemberRow>, StoreFault>, Error> {
        let select = format!(
            "select {ROLE}::pg_catalog.text, pg_catalog.pg_typeof({ROLE})::pg_catalog.oid, \
             {WORKSPACE}::pg_catalog.text, pg_catalog.pg_typeof({WORKSPACE})::pg_catalog.oid \
             from {} limit {MAX_ROWS}",
            wrapped(query)
        );
        let rows = self.query(&select, Some(user), Some(workspace)).await?;
        let mut members = Vec::new();
        for row in &rows {
            match self.member(row).await? {
                Ok(member) => members.push(member),
                Err(fault) => return Ok(Err(fault)),
            }
        }
        Ok(Ok(members))
    }

    /// Returns the types of the columns without a run of the query, or what is wrong with them.
    pub(super) async fn columns(
        &self,
        query: &str,
    ) -> Result<Result<Vec<String>, StoreFault>, Error> {
        let select = format!(
            "select pg_catalog.pg_typeof({ROLE})::pg_catalog.oid, \
             pg_catalog.pg_typeof({WORKSPACE})::pg_catalog.oid \
             from (select) as nothing left join {} on false",
            wrapped(query)
        );
        let rows = self.query(&select, None, None).await?;
        let Some(row) = rows.first() else {
            return Ok(Err(StoreFault::invalid_role("no column")));
        };
        let (role, workspace) = (self.column(row, 0).await?, self.column(row, 1).await?);
        Ok(check_columns(role.as_ref(), workspace.as_ref()).map(|()| {
            let columns = [("role", role), ("workspace", workspace)].into_iter();
            columns
                .filter_map(|(name, column)| Some(format!("{name} ({})", column?.name())))
                .collect()
        }))
    }

    async fn query(
        &self,
        select: &str,
        user: Option<&str>,
        workspace: Option<&str>,
    ) -> Result<Vec<Row>, Error> {
        let (user, workspace) = (user.map(Literal), workspace.map(Literal));
        let parameters: [(&(dyn ToSql + Sync), Type); 2] =
            [(&user, Type::UNKNOWN), (&workspace, Type::UNKNOWN)];
        let query = self.client.query_typed(select, &parameters);
        in_transaction(self.client, &self.begin, query).await
    }

    async fn member(&self, row: &Row) -> Result<Result<MemberRow, StoreFault>, Error> {
        let (role, workspace) = (self.column(row, 1).await?, self.column(row, 3).await?);
        Ok(
            check_columns(role.as_ref(), workspace.as_ref()).and_then(|()| {
                let id = workspace.map(|_| {
                    let id = row.get::<_, Option<&str>>(2);
                    workspace_id(id.ok_or_else(|| StoreFault::invalid_id("null"))?)
                });
                Ok(MemberRow {
                    role: row.get(0),
                    workspace: id.transpose()?,
                })
            }),
        )
    }

    /// The type of a column of the query; `None` if it has no such column.
    async fn column(&self, row: &Row, index: usize) -> Result<Option<Type>, Error> {
        let number: Oid = row.get(index);
        if number == NO_COLUMN.oid() {
            return Ok(None);
        }
        let cached = || self.types.0.lock().get(&number).cloned();
        if let Some(known) = Type::from_oid(number).or_else(cached) {
            return Ok(Some(known));
        }
        let found = self.find_type(number).await?;
        let mut types = self.types.0.lock();
        if types.len() >= MAX_TYPES {
            types.clear();
        }
        types.insert(number, found.clone());
        Ok(Some(found))
    }

    /// A type that is not built in. A domain is the type that it restricts.
    async fn find_type(&self, number: Oid) -> Result<Type, Error> {
        const FIND: &str = "\
            with recursive found as ( \
                select oid, typname, typtype, typbasetype from pg_catalog.pg_type where oid = $1 \
                union all \
                select base.oid, base.typname, base.typtype, base.typbasetype \
                from pg_catalog.pg_type as base join found on base.oid = found.typbasetype \
            ) select oid, typname::pg_catalog.text, typtype = 'e' from found where typtype <> 'd'";

        let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&number, Type::OID)];
        let query = self.client.query_typed_one(FIND, &parameters);
        let row = in_transaction(self.client, &self.begin, query).await?;
        let number = row.get(0);
        let kind = match row.get(2) {
            true => Kind::Enum(Vec::new()),
            false => Kind::Simple,
        };
        Ok(Type::from_oid(number)
            .unwrap_or_else(|| Type::new(row.get(1), number, kind, String::new())))
    }
}

/// The names of the first two columns in the wrapped query. No other column of it has them.
const ROLE: &str = "\"the role\"";
const WORKSPACE: &str = "\"the workspace\"";

/// No column that a query returns has this type, except the results of functions without one.
const NO_COLUMN: Type = Type::VOID;

/// The query with two more columns, so that there are always two, named by their position.
fn wrapped(query: &str) -> String {
    let query = query.trim_end().trim_end_matches(';');
    // The query may end with a comment.
    format!(
        "(select member.*, ''::pg_catalog.void, ''::pg_catalog.void from (\n{query}\n) as member) \
         as member ({ROLE}, {WORKSPACE})"
    )
}
