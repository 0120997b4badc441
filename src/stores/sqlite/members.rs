//! Memberships in a SQLite file: usually the app's own, which is only read.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix_web::web;
use futures_util::future::LocalBoxFuture;
use rusqlite::{Connection, OpenFlags, limits::Limit, types::ValueRef};

use crate::stores::{
    backend::Backend,
    fault::{StoreFault, Unreachable},
    health::Health,
    kind::Opening,
    members::{MAX_CONNECTIONS, MAX_ROWS, MemberDatabase, MemberRow, workspace_id},
    pool::Pool,
};

/// How often a running query checks whether it was given up, in SQLite's instructions.
const INSTRUCTIONS: i32 = 1000;

pub(super) struct Members {
    path: PathBuf,
    pool: Arc<Pool<Connection>>,
    health: Health,
}

/// Stops a query when it is dropped.
struct EndsQuery(Arc<AtomicBool>);

impl Drop for EndsQuery {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl MemberDatabase for Arc<Members> {
    fn members<'a>(
        &'a self,
        query: &'a str,
        user: &'a str,
        workspace: &'a str,
    ) -> LocalBoxFuture<'a, Result<Vec<MemberRow>, StoreFault>> {
        let question = [query, user, workspace].map(str::to_owned);
        Box::pin(self.run(self.health.timeout(), ask(self, question)))
    }
}

impl Backend for Members {
    fn health(&self) -> &Health {
        &self.health
    }

    fn probe(self: Arc<Self>, within: Duration) -> LocalBoxFuture<'static, Result<(), StoreFault>> {
        Box::pin(async move {
            let probed = web::block(move || {
                // It gives up before the probe does, and says why.
                let connection = self.open(within * 9 / 10)?;
                let schema = "SELECT count(*) FROM sqlite_schema";
                let read = connection.query_row(schema, [], |_| Ok(()));
                read.map_err(|error| StoreFault::Refused(error.to_string()))
            });
            let stopped = |_| Err(StoreFault::Down);
            probed.await.unwrap_or_else(stopped)
        })
    }
}

/// Queries on its own connection, on a thread that may block. The connection is reused only if the request waited for
/// the answer, and there was one.
async fn ask(file: &Arc<Members>, question: [String; 3]) -> Result<Vec<MemberRow>, StoreFault> {
    let turn = file.pool.turn(file.health.returns()).await;
    let kept = turn.idle_connection();
    let is_given_up = Arc::<AtomicBool>::default();
    let ends_query = EndsQuery(is_given_up.clone());
    let file = file.clone();
    let asked = web::block(move || {
        let mut connection = match kept {
            Some(kept) => kept,
            None => file.open(file.health.timeout())?,
        };
        let ends = move || is_given_up.load(Ordering::Relaxed);
        let answer = connection
            .progress_handler(INSTRUCTIONS, Some(ends))
            .map_err(fault)
            .and_then(|()| select(&connection, &question));
        Ok((answer, connection))
    });
    let asked = asked.await;
    drop(ends_query);
    let (answer, connection) = asked.unwrap_or(Err(StoreFault::Down))?;
    if answer.is_ok() {
        turn.give_back(connection);
    }
    answer
}

impl Members {
    pub(super) fn new(path: &Path, opening: &Opening<'_>) -> Self {
        Self {
            path: path.to_owned(),
            pool: Pool::new(MAX_CONNECTIONS),
            health: opening.health(),
        }
    }

    /// `busy` is how long to wait for a lock.
    fn open(&self, busy: Duration) -> Result<Connection, StoreFault> {
        let opened = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY);
        let opened = opened.and_then(|connection| {
            connection.busy_timeout(busy)?;
            // A query reads this file, and cannot attach or write another one.
            connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
            Ok(connection)
        });
        opened.map_err(|error| Unreachable::failed(self.path.display(), error).into())
    }
}

fn fault(error: rusqlite::Error) -> StoreFault {
    StoreFault::of_query(error)
}

fn select(
    connection: &Connection,
    [query, user, workspace]: &[String; 3],
) -> Result<Vec<MemberRow>, StoreFault> {
    let mut statement = connection.prepare_cached(query).map_err(fault)?;
    // SQLite treats `$1` as a name, and the first name in the text is the first parameter.
    for (name, value) in [("$1", user), ("$2", workspace)] {
        if let Some(index) = statement.parameter_index(name).map_err(fault)? {
            statement.raw_bind_parameter(index, value).map_err(fault)?;
        }
    }
    let has_workspace = statement.column_count() > 1;
    let mut rows = statement.raw_query();
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(fault)? {
        if found.len() == MAX_ROWS {
            break;
        }
        let role = match row.get_ref(0).map_err(fault)? {
            ValueRef::Null => None,
            ValueRef::Text(role) => {
                Some(utf8(role).ok_or_else(|| StoreFault::no_text("no UTF-8"))?)
            }
            other => return Err(StoreFault::no_text(other.data_type())),
        };
        let workspace = if has_workspace {
            Some(match row.get_ref(1).map_err(fault)? {
                ValueRef::Text(id) => {
                    workspace_id(&utf8(id).ok_or_else(|| StoreFault::no_id("no UTF-8"))?)?
                }
                ValueRef::Integer(id) => workspace_id(&id.to_string())?,
                other => return Err(StoreFault::no_id(other.data_type())),
            })
        } else {
            None
        };
        found.push(MemberRow { role, workspace });
    }
    Ok(found)
}

fn utf8(text: &[u8]) -> Option<String> {
    str::from_utf8(text).map(str::to_owned).ok()
}
