//! Memberships in a SQLite file, usually the app's own, which the gate only reads.

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

use super::super::{
    fault::{StoreFault, Unreachable},
    health::Health,
    kind::OpenOptions,
};
use crate::stores::{
    connections::Pool,
    health::Backend,
    kind::{MAX_CONNECTIONS, MAX_ROWS, MemberDatabase, MemberRow, workspace_id},
};

/// After how many of SQLite's instructions a query checks whether it was cancelled.
const INSTRUCTIONS: i32 = 1000;

pub(super) struct Members {
    path: PathBuf,
    pool: Arc<Pool<Connection>>,
    health: Health,
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl MemberDatabase for Arc<Members> {
    fn columns<'a>(
        &'a self,
        query: &'a str,
    ) -> LocalBoxFuture<'a, Result<Vec<String>, StoreFault>> {
        let (file, query) = (self.clone(), query.to_owned());
        let prepared = async {
            let prepared = web::block(move || {
                let connection = file.open(file.health.timeout())?;
                let statement = connection.prepare(&query).map_err(fault)?;
                let columns = statement.column_names();
                let columns: Vec<_> = columns.map(str::to_owned).collect();
                if columns.is_empty() {
                    return Err(StoreFault::invalid_role("no column"));
                }
                Ok(columns)
            });
            prepared.await.unwrap_or(Err(StoreFault::Down))
        };
        Box::pin(self.run(self.health.timeout(), prepared))
    }

    fn members<'a>(
        &'a self,
        query: &'a str,
        user: &'a str,
        workspace: &'a str,
        _: Duration,
    ) -> LocalBoxFuture<'a, Result<Vec<MemberRow>, StoreFault>> {
        let query = [query, user, workspace].map(str::to_owned);
        Box::pin(self.run(self.health.timeout(), query_file(self, query)))
    }
}

impl Backend for Members {
    fn health(&self) -> &Health {
        &self.health
    }

    async fn probe(self: &Arc<Self>, within: Duration) -> Result<(), StoreFault> {
        let file = self.clone();
        let probed = web::block(move || {
            // Shorter than the probe's limit, because this error names the cause.
            let connection = file.open(within * 9 / 10)?;
            let schema = "SELECT count(*) FROM sqlite_schema";
            let read = connection.query_row(schema, [], |_| Ok(()));
            read.map_err(|error| StoreFault::Refused(error.to_string()))
        });
        let stopped = |_| Err(StoreFault::Down);
        probed.await.unwrap_or_else(stopped)
    }
}

/// Runs a query on a thread that may block. The connection is reused only after the query succeeded.
async fn query_file(file: &Arc<Members>, query: [String; 3]) -> Result<Vec<MemberRow>, StoreFault> {
    let permit = file.pool.acquire(file.health.recoveries()).await;
    let idle = permit.idle_connection();
    let is_cancelled = Arc::<AtomicBool>::default();
    let cancel = CancelOnDrop(is_cancelled.clone());
    let file = file.clone();
    let answered = web::block(move || {
        let mut connection = match idle {
            Some(idle) => idle,
            None => file.open(file.health.timeout())?,
        };
        let is_cancelled = move || is_cancelled.load(Ordering::Relaxed);
        let answer = connection
            .progress_handler(INSTRUCTIONS, Some(is_cancelled))
            .map_err(fault)
            .and_then(|()| select(&connection, &query));
        Ok((answer, connection))
    });
    let answered = answered.await;
    drop(cancel);
    let (answer, connection) = answered.unwrap_or(Err(StoreFault::Down))?;
    if answer.is_ok() {
        permit.reuse(connection);
    }
    answer
}

impl Members {
    pub(super) fn new(path: &Path, options: &OpenOptions<'_>) -> Self {
        Self {
            path: path.to_owned(),
            pool: Pool::new(MAX_CONNECTIONS),
            health: options.health(),
        }
    }

    fn open(&self, lock_timeout: Duration) -> Result<Connection, StoreFault> {
        let opened = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY);
        let opened = opened.and_then(|connection| {
            connection.busy_timeout(lock_timeout)?;
            // A query cannot attach another file, which it could write.
            connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
            Ok(connection)
        });
        opened.map_err(|error| Unreachable::failed(self.path.display(), error).into())
    }
}

fn fault(error: rusqlite::Error) -> StoreFault {
    StoreFault::query(error)
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
                Some(utf8(role).ok_or_else(|| StoreFault::invalid_role("invalid UTF-8"))?)
            }
            other => return Err(StoreFault::invalid_role(other.data_type())),
        };
        let workspace = if has_workspace {
            Some(match row.get_ref(1).map_err(fault)? {
                ValueRef::Text(id) => {
                    workspace_id(&utf8(id).ok_or_else(|| StoreFault::invalid_id("invalid UTF-8"))?)?
                }
                ValueRef::Integer(id) => workspace_id(&id.to_string())?,
                other => return Err(StoreFault::invalid_id(other.data_type())),
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
