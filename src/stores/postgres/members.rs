//! Memberships in a PostgreSQL database, which is only read.

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use futures_util::{TryStreamExt as _, future::LocalBoxFuture};
use tokio::runtime::Handle;
use tokio_postgres::{Error, Row, Statement, error::SqlState};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    connect::{Connector, Session},
    error::fault,
    text::{Id, Literal, Text},
    url::PostgresUrl,
};
use crate::stores::{
    backend::Backend,
    fault::{StoreFault, Unreachable},
    health::Health,
    kind::Opening,
    members::{MAX_CONNECTIONS, MAX_ROWS, MemberDatabase, MemberRow, workspace_id},
    pool::Pool,
};

/// How many statements a connection keeps prepared: one for each policy, and those from before a reload.
const MAX_STATEMENTS: usize = 64;

/// A database that is asked.
pub(super) struct Members {
    connector: Connector,
    pool: Arc<Pool<Connection>>,
    health: Health,
}

struct Connection {
    session: Session,
    statements: HashMap<String, Statement>,
}

impl MemberDatabase for Arc<Members> {
    fn members<'a>(
        &'a self,
        query: &'a str,
        user: &'a str,
        workspace: &'a str,
    ) -> LocalBoxFuture<'a, Result<Vec<MemberRow>, StoreFault>> {
        let asked = self.select(query, [user, workspace]);
        Box::pin(self.run(self.health.timeout(), asked))
    }
}

impl Backend for Members {
    fn health(&self) -> &Health {
        &self.health
    }

    fn probe(self: Arc<Self>, within: Duration) -> LocalBoxFuture<'static, Result<(), StoreFault>> {
        Box::pin(async move {
            let connection = self.connect(within).await?;
            let asked = connection.session.client.simple_query("select 1").await;
            asked.map(drop).map_err(|error| fault(&error))
        })
    }
}

impl Members {
    /// Connects when it is asked.
    pub(super) fn new(url: &PostgresUrl, opening: &Opening<'_>) -> Self {
        Self {
            connector: Connector::new(url, opening),
            pool: Pool::new(MAX_CONNECTIONS),
            health: opening.health(),
        }
    }

    async fn connect(&self, within: Duration) -> Result<Connection, Unreachable> {
        // Whatever a query says, nothing is written, and the server ends what takes too long.
        let begin = format!(
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY; SET statement_timeout = {}",
            self.health.timeout().as_millis().max(1)
        );
        let set_up = |session: Session| {
            let begin = begin.clone();
            async move {
                session.client.batch_execute(&begin).await?;
                Ok(Connection {
                    session,
                    statements: HashMap::new(),
                })
            }
        };
        let connection = self.connector.connect(within, set_up).await?;
        // A probe tests no more than that, so a query that is wrong does not hide it.
        self.health.works();
        Ok(connection)
    }

    /// Asks on a connection of its own. A query only reads, so it is repeated if a connection broke that was kept.
    async fn select(
        &self,
        query: &str,
        parameters: [&str; 2],
    ) -> Result<Vec<MemberRow>, StoreFault> {
        let turn = self.pool.turn(self.health.returns()).await;
        loop {
            let kept = turn.idle_connection();
            let was_kept = kept.is_some();
            let connection = match kept {
                Some(kept) => kept,
                None => self.connect(self.health.timeout() * 9 / 10).await?,
            };
            let running = Running {
                connection: Some(connection),
                tls: self.connector.tls(),
                timeout: self.health.timeout(),
            };
            let (answer, connection) = running.select(query, parameters).await;
            if let Some(connection) = connection {
                turn.give_back(connection);
            } else if was_kept && matches!(answer, Err(StoreFault::Broken(_))) {
                continue;
            }
            return answer;
        }
    }
}

/// A query that runs. If it is given up, so is its connection, and the server is told to end it.
struct Running {
    connection: Option<Connection>,
    tls: MakeRustlsConnect,
    timeout: Duration,
}

impl Running {
    /// Returns the connection, too, if the answer was read to its end.
    async fn select(
        mut self,
        query: &str,
        parameters: [&str; 2],
    ) -> (Result<Vec<MemberRow>, StoreFault>, Option<Connection>) {
        let Some(connection) = &mut self.connection else {
            return (Err(StoreFault::Unsent), None);
        };
        match connection.select(query, parameters).await {
            Ok((rows, true)) => (members(&rows), self.connection.take()),
            Ok((rows, false)) => (members(&rows), None),
            Err(error) => match fault(&error) {
                broken @ StoreFault::Broken(_) => (Err(broken), None),
                // An identifier that the column cannot hold belongs to nobody.
                _ if is_no_value(&error) => (Ok(Vec::new()), self.connection.take()),
                StoreFault::Refused(message) => {
                    let fault = StoreFault::of_query(message);
                    (Err(fault), self.connection.take())
                }
                fault => (Err(fault), self.connection.take()),
            },
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        if connection.session.client.is_closed() {
            return;
        }
        let cancel = connection.session.client.cancel_token();
        let (tls, timeout) = (self.tls.clone(), self.timeout);
        // A thread that ends has no runtime any more; the server's own timeout ends the query then.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let cancelled = tokio::time::timeout(timeout, cancel.cancel_query(tls)).await;
                if !matches!(cancelled, Ok(Ok(()))) {
                    tracing::debug!("a query that was given up could not be cancelled");
                }
                drop(connection);
            });
        }
    }
}

impl Connection {
    /// The rows, at most [`MAX_ROWS`] of them, and whether these are all.
    async fn select(
        &mut self,
        query: &str,
        [user, workspace]: [&str; 2],
    ) -> Result<(Vec<Row>, bool), Error> {
        let client = &self.session.client;
        let statement = match self.statements.get(query) {
            Some(statement) => statement.clone(),
            None => {
                let statement = client.prepare(query).await?;
                if self.statements.len() >= MAX_STATEMENTS {
                    self.statements.clear();
                }
                self.statements.insert(query.to_owned(), statement.clone());
                statement
            }
        };
        let parameters = [Literal(user), Literal(workspace)];
        let mut rows = pin!(client.query_raw(&statement, parameters).await?);
        let mut found = Vec::new();
        while let Some(row) = rows.try_next().await? {
            if found.len() == MAX_ROWS {
                return Ok((found, false));
            }
            found.push(row);
        }
        Ok((found, true))
    }
}

fn members(rows: &[Row]) -> Result<Vec<MemberRow>, StoreFault> {
    rows.iter().map(member).collect()
}

fn member(row: &Row) -> Result<MemberRow, StoreFault> {
    let column = |index: usize| row.columns().get(index).map(|column| column.type_().name());
    let role = row.try_get::<_, Option<Text>>(0);
    let role = role.map_err(|_| StoreFault::no_text(column(0).unwrap_or("missing")))?;
    let workspace = match column(1) {
        None => None,
        Some(name) => {
            let id = row.try_get::<_, Option<Id>>(1);
            let Id(id) = id
                .map_err(|_| StoreFault::no_id(name))?
                .ok_or_else(|| StoreFault::no_id("null"))?;
            Some(workspace_id(&id)?)
        }
    };
    Ok(MemberRow {
        role: role.map(|Text(role)| role),
        workspace,
    })
}

fn is_no_value(error: &Error) -> bool {
    let code = error.code();
    code == Some(&SqlState::INVALID_TEXT_REPRESENTATION)
        || code == Some(&SqlState::NUMERIC_VALUE_OUT_OF_RANGE)
}
