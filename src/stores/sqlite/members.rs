//! Memberships in a file of SQLite's: usually the app's own, which is only read.

use std::{
    path::PathBuf,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix_web::web;
use futures_util::future::LocalBoxFuture;
use policies::StoreName;
use rusqlite::{Connection, InterruptHandle, OpenFlags, limits::Limit, types::ValueRef};
use tokio::sync::oneshot;

use crate::stores::{
    health::{Health, Probe},
    members::{MAX_ROWS, MemberDatabase, MemberRow, QueryError, check, workspace_id},
};

/// How many connections are kept.
const MAX_IDLE: usize = 8;

/// A file that is asked.
pub(in crate::stores) struct SqliteMembers {
    file: Arc<File>,
    health: Arc<Health>,
}

struct File {
    path: PathBuf,
    timeout: Duration,
    idle: Mutex<Vec<Connection>>,
}

impl SqliteMembers {
    pub(in crate::stores) fn new(name: &StoreName, path: PathBuf, timeout: Duration) -> Self {
        let file = File {
            path,
            timeout,
            idle: Mutex::default(),
        };
        Self {
            file: Arc::new(file),
            health: Health::new(name.clone()),
        }
    }
}

impl SqliteMembers {
    /// Tries the file.
    fn probe(&self) -> Probe {
        let file = self.file.clone();
        Rc::new(move || {
            let file = file.clone();
            Box::pin(async move {
                let probed = web::block(move || file.probe()).await;
                let probed = probed.map_err(|error| error.to_string())?;
                probed.map_err(|error| error.to_string())
            })
        })
    }
}

impl MemberDatabase for SqliteMembers {
    fn members<'a>(
        &'a self,
        query: &'a str,
        user: &'a str,
        workspace: &'a str,
    ) -> LocalBoxFuture<'a, Result<Vec<MemberRow>, QueryError>> {
        Box::pin(async move {
            check(&self.health)?;
            let file = self.file.clone();
            let question = [query, user, workspace].map(str::to_owned);
            let (begun, mut running) = oneshot::channel();
            let asking = web::block(move || file.ask(&question, begun));
            let answer = match tokio::time::timeout(self.file.timeout, asking).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => Err(QueryError::Down(error.to_string())),
                Err(_) => {
                    // Nobody waits for it any more, so its thread is set free.
                    if let Ok(query) = running.try_recv() {
                        query.interrupt();
                    }
                    Err(QueryError::Timeout)
                }
            };
            if let Err(error @ (QueryError::Down(_) | QueryError::Timeout)) = &answer {
                self.health.is_down(&error.to_string(), self.probe());
            } else {
                self.health.answered();
            }
            answer
        })
    }

    fn is_healthy(&self) -> bool {
        self.health.is_ready()
    }

    fn begin(&self) {
        self.health.begin(self.probe());
    }
}

impl File {
    /// Asks, and hands out what ends the query.
    fn ask(
        &self,
        [query, user, workspace]: &[String; 3],
        begun: oneshot::Sender<InterruptHandle>,
    ) -> Result<Vec<MemberRow>, QueryError> {
        let connection = self.connection()?;
        // Whoever asked may have given up.
        let _ = begun.send(connection.get_interrupt_handle());
        let answer = select(&connection, query, user, workspace);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
        answer
    }

    fn connection(&self) -> Result<Connection, QueryError> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.pop();
        drop(idle);
        kept.map_or_else(|| self.open(), Ok)
    }

    fn open(&self) -> Result<Connection, QueryError> {
        let down = |error: rusqlite::Error| QueryError::Down(error.to_string());
        let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .map_err(down)?;
        connection.busy_timeout(self.timeout).map_err(down)?;
        // A query reads this file, and cannot attach or write another one.
        connection
            .set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)
            .map_err(down)?;
        Ok(connection)
    }

    fn probe(&self) -> Result<(), QueryError> {
        let connection = self.open()?;
        let read = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
        read.map_err(|error| QueryError::Down(error.to_string()))
    }
}

fn select(
    connection: &Connection,
    query: &str,
    user: &str,
    workspace: &str,
) -> Result<Vec<MemberRow>, QueryError> {
    let fault = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(
            rusqlite::ErrorCode::CannotOpen
            | rusqlite::ErrorCode::DatabaseBusy
            | rusqlite::ErrorCode::DatabaseCorrupt
            | rusqlite::ErrorCode::DatabaseLocked
            | rusqlite::ErrorCode::NotADatabase
            | rusqlite::ErrorCode::SystemIoFailure,
        ) => QueryError::Down(error.to_string()),
        _ => QueryError::Query(error.to_string()),
    };
    let mut statement = connection.prepare_cached(query).map_err(fault)?;
    // To SQLite `$1` is a name, and the first that it meets is the first parameter.
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
                Some(utf8(role).ok_or_else(|| QueryError::no_text("no UTF-8"))?)
            }
            other => return Err(QueryError::no_text(other.data_type())),
        };
        let workspace = if has_workspace {
            Some(match row.get_ref(1).map_err(fault)? {
                ValueRef::Text(id) => {
                    workspace_id(&utf8(id).ok_or_else(|| QueryError::no_id("no UTF-8"))?)?
                }
                ValueRef::Integer(id) => workspace_id(&id.to_string())?,
                other => return Err(QueryError::no_id(other.data_type())),
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
