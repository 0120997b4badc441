//! Memberships in a SQLite file, usually the app's own, which the gate only reads.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use actix_web::{rt, web};
use futures_util::future::LocalBoxFuture;
use rusqlite::{Connection, OpenFlags, limits::Limit, types::ValueRef};
use tokio::sync::Semaphore;

use super::{
    access::{Purpose, find_problem, open_fault},
    file::{CHECK_PERIOD, Snapshot},
};
use crate::stores::{
    connections::Pool,
    fault::{StoreFault, Unreachable},
    health::{Backend, Health},
    kind::{MAX_CONNECTIONS, MAX_ROWS, MemberDatabase, MemberRow, OpenOptions, workspace_id},
};

/// After how many of SQLite's instructions a query checks whether it was cancelled.
const INSTRUCTIONS: i32 = 1000;

pub(super) struct Members {
    path: PathBuf,
    pool: Arc<Pool<Connection>>,
    health: Health,
    /// For one thread that probes. On a disk that hangs, each probe would keep a thread for ever.
    probing: Arc<Semaphore>,
    /// How often the file was written or replaced. Connections from before are not used again.
    changes: AtomicU32,
    /// How often the path named another file, or none. Cached memberships from before are not used again.
    files: AtomicU32,
}

/// Looks at the file in the background, without opening it, until the store is closed.
async fn watch_file(members: Weak<Members>) {
    let mut latest = None;
    loop {
        let Some(open) = members.upgrade() else {
            return;
        };
        let path = open.path.clone();
        if let Ok(now) = web::block(move || Snapshot::of(&path)).await {
            if let Some(before) = &latest {
                open.compare(before, &now);
            }
            latest = Some(now);
        }
        drop(open);
        tokio::time::sleep(CHECK_PERIOD).await;
    }
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

    fn version(&self) -> u32 {
        self.files.load(Ordering::Acquire)
    }
}

impl Backend for Members {
    fn health(&self) -> &Health {
        &self.health
    }

    fn watch(self: &Arc<Self>) {
        rt::spawn(watch_file(Arc::downgrade(self)));
    }

    async fn probe(self: &Arc<Self>, within: Duration) -> Result<(), StoreFault> {
        let file = self.clone();
        let turn = self.probing.clone().acquire_owned().await;
        let probed = web::block(move || {
            let _turn = turn;
            // Shorter than the probe's limit, because this error names the cause.
            let connection = file.open(within * 9 / 10)?;
            let schema = "SELECT count(*) FROM sqlite_schema";
            let read = connection.query_row(schema, [], |_| Ok(()));
            read.map_err(|error| open_fault(&file.path, &error))
        });
        let stopped = |_| Err(StoreFault::Down);
        probed.await.unwrap_or_else(stopped)
    }
}

/// Runs a query on a thread that may block. The connection is reused only after the query succeeded.
async fn query_file(file: &Arc<Members>, query: [String; 3]) -> Result<Vec<MemberRow>, StoreFault> {
    let permit = file.pool.acquire(file.generation()).await;
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
            probing: Arc::new(Semaphore::new(1)),
            changes: AtomicU32::new(0),
            files: AtomicU32::new(0),
        }
    }

    /// Of connections.
    fn generation(&self) -> u32 {
        let changes = self.changes.load(Ordering::Relaxed);
        self.health.recoveries().wrapping_add(changes)
    }

    /// SQLite itself notices what is written through it, but not that a file was replaced or overwritten.
    fn compare(self: &Arc<Self>, before: &Option<Snapshot>, now: &Option<Snapshot>) {
        if before == now {
            return;
        }
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.pool.close_older(self.generation());
        let id = |snapshot: &Option<Snapshot>| snapshot.as_ref().map(|snapshot| snapshot.id);
        if id(before) == id(now) {
            return;
        }
        self.files.fetch_add(1, Ordering::Release);
        let (store, path) = (self.health.store(), self.path.display());
        if now.is_none() {
            let purpose = Purpose::Read;
            let gone = find_problem(&self.path, purpose).map(StoreFault::File);
            self.mark_down(&gone.unwrap_or(StoreFault::Down));
        } else {
            tracing::info!(%store, %path, "the database is another file now, and is opened again");
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
        opened.map_err(|error| match find_problem(&self.path, Purpose::Read) {
            Some(problem) => problem.into(),
            None => Unreachable::failed(self.path.display(), error).into(),
        })
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
