//! Memberships in a PostgreSQL database, which the gate only reads.

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use futures_util::{TryStreamExt as _, future::LocalBoxFuture};
use tokio::{runtime::Handle, time::timeout};
use tokio_postgres::{Client, Column, Error, Row, Statement, error::SqlState};

use super::{
    connect::{Connector, Session, fault},
    pooled_members::{ColumnTypes, Transaction},
    transaction::quoted,
    types::{Id, Literal, Text, check_columns},
    url::PostgresUrl,
};
use crate::stores::{
    connections::Pool,
    fault::{StoreFault, Unreachable},
    health::{Backend, Health},
    kind::{MAX_CONNECTIONS, MAX_ROWS, MemberDatabase, MemberRow, OpenOptions, workspace_id},
    remark::Remark,
};

/// Per connection: one for each policy, and those of earlier configs.
const MAX_STATEMENTS: usize = 64;

pub(super) struct Members {
    connector: Connector,
    pool: Arc<Pool<Connection>>,
    health: Health,
    search_path: Option<String>,
    types: ColumnTypes,
}

struct Connection {
    session: Session,
    statements: HashMap<String, Statement>,
}

impl MemberDatabase for Arc<Members> {
    fn columns<'a>(
        &'a self,
        query: &'a str,
    ) -> LocalBoxFuture<'a, Result<Vec<String>, StoreFault>> {
        let prepared = async move {
            // A connection of its own, which is closed.
            let connection = self.connect(self.health.timeout() * 9 / 10).await?;
            if connection.session.is_pooled {
                let transaction = self.transaction(&connection, self.health.timeout());
                let columns = transaction.columns(query).await;
                return columns.map_err(|error| query_fault(&error))?;
            }
            let prepared = connection.session.client.prepare(query).await;
            let statement = prepared.map_err(|error| query_fault(&error))?;
            let columns = statement.columns();
            let type_of = |index: usize| columns.get(index).map(Column::type_);
            check_columns(type_of(0), type_of(1))?;
            Ok(columns
                .iter()
                .map(|column| format!("{} ({})", column.name(), column.type_().name()))
                .collect())
        };
        Box::pin(self.run(self.health.timeout(), prepared))
    }

    fn members<'a>(
        &'a self,
        query: &'a str,
        user: &'a str,
        workspace: &'a str,
        within: Duration,
    ) -> LocalBoxFuture<'a, Result<Vec<MemberRow>, StoreFault>> {
        let rows = self.select(query, [user, workspace], within);
        Box::pin(self.run(self.health.timeout(), rows))
    }
}

impl Backend for Members {
    fn health(&self) -> &Health {
        &self.health
    }

    fn remarks(&self) -> Vec<Remark> {
        self.connector.remark().into_iter().collect()
    }

    async fn probe(self: &Arc<Self>, within: Duration) -> Result<(), StoreFault> {
        let connection = self.connect(within).await?;
        let probed = connection.session.client.simple_query("select 1").await;
        probed.map(drop).map_err(|error| fault(&error))
    }
}

impl Members {
    /// Connects on the first query.
    pub(super) fn new(url: &PostgresUrl, options: &OpenOptions<'_>) -> Self {
        Self {
            connector: Connector::new(url, options),
            pool: Pool::new(MAX_CONNECTIONS),
            health: options.health(),
            search_path: url.search_path.clone(),
            types: ColumnTypes::default(),
        }
    }

    async fn connect(&self, within: Duration) -> Result<Connection, Unreachable> {
        // No query can write, and the server cancels slow queries. Through a pooler, each transaction says so.
        let mut begin = format!(
            "set session characteristics as transaction read only; set statement_timeout to {}",
            self.health.timeout().as_millis().max(1)
        );
        if let Some(path) = &self.search_path {
            begin = format!("{begin}; set search_path to {}", quoted(path));
        }
        let set_up = async |session: Session| {
            if !session.is_pooled {
                session.client.batch_execute(&begin).await?;
            }
            Ok(Connection {
                session,
                statements: HashMap::new(),
            })
        };
        let connection = self.connector.connect(within, set_up).await?;
        // The database is healthy if it can be connected to, even if the query is wrong.
        self.health.record_success();
        Ok(connection)
    }

    /// Queries on a connection that no other query uses. If an idle connection broke, the query is repeated, because it
    /// only reads.
    async fn select(
        &self,
        query: &str,
        parameters: [&str; 2],
        within: Duration,
    ) -> Result<Vec<MemberRow>, StoreFault> {
        let permit = self.pool.acquire(self.health.recoveries()).await;
        loop {
            let idle = permit.idle_connection();
            let was_idle = idle.is_some();
            let mut connection = match idle {
                Some(idle) => idle,
                None => self.connect(self.health.timeout() * 9 / 10).await?,
            };
            let (selected, is_complete) = match connection.session.is_pooled {
                true => {
                    let transaction = self.transaction(&connection, within);
                    (transaction.members(query, parameters).await, true)
                }
                false => self.select_on(&mut connection, query, parameters).await,
            };
            let answer = match selected {
                Ok(answer) => answer,
                // The column cannot hold this identifier, so there is no such member.
                Err(error) if is_invalid_value(&error) => Ok(Vec::new()),
                Err(error) => Err(query_fault(&error)),
            };
            match answer {
                Err(StoreFault::Broken(_)) if was_idle => continue,
                Err(StoreFault::Broken(_)) => {}
                _ if is_complete => permit.reuse(connection),
                _ => {}
            }
            return answer;
        }
    }

    /// Queries on a connection with a server process of its own. Returns whether the whole answer was read.
    async fn select_on(
        &self,
        connection: &mut Connection,
        query: &str,
        parameters: [&str; 2],
    ) -> (Result<Result<Vec<MemberRow>, StoreFault>, Error>, bool) {
        let Connection {
            session,
            statements,
        } = connection;
        let mut cancel = CancelOnDrop {
            client: Some(&session.client),
            of: self,
        };
        let selected = select(&session.client, statements, query, parameters).await;
        let is_complete = !matches!(selected, Ok((_, false)));
        if is_complete {
            cancel.client = None;
        }
        let members = selected.map(|(rows, _)| rows.iter().map(member).collect());
        (members, is_complete)
    }

    /// A transaction that the server ends before the caller gives up, so that neither a query goes on for nothing nor a
    /// connection is lost. The gate asks a pooler to cancel nothing, because another client may have the server process
    /// by then.
    fn transaction<'a>(&'a self, connection: &'a Connection, within: Duration) -> Transaction<'a> {
        let timeout = within.min(self.health.timeout()) * 9 / 10;
        let search_path = self.search_path.as_deref();
        Transaction::new(
            &connection.session.client,
            search_path,
            timeout,
            &self.types,
        )
    }
}

/// Cancels a query that goes on for nothing.
struct CancelOnDrop<'a> {
    client: Option<&'a Client>,
    of: &'a Members,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        // A thread that ends no longer has a runtime. Then the server's timeout ends the query.
        let (Some(client), Ok(runtime)) = (self.client, Handle::try_current()) else {
            return;
        };
        let (query, tls) = (client.cancel_token(), self.of.connector.tls());
        let within = self.of.health.timeout();
        runtime.spawn(async move {
            let cancelled = timeout(within, query.cancel_query(tls)).await;
            if !matches!(cancelled, Ok(Ok(()))) {
                tracing::debug!("cannot cancel a query");
            }
        });
    }
}

/// Returns at most [`MAX_ROWS`] rows, and whether these are all.
async fn select(
    client: &Client,
    statements: &mut HashMap<String, Statement>,
    query: &str,
    [user, workspace]: [&str; 2],
) -> Result<(Vec<Row>, bool), Error> {
    let statement = match statements.get(query) {
        Some(statement) => statement.clone(),
        None => {
            let statement = client.prepare(query).await?;
            if statements.len() >= MAX_STATEMENTS {
                statements.clear();
            }
            statements.insert(query.to_owned(), statement.clone());
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

fn member(row: &Row) -> Result<MemberRow, StoreFault> {
    let column = |index: usize| row.columns().get(index).map(|column| column.type_().name());
    let role = row.try_get::<_, Option<Text>>(0);
    let role = role.map_err(|_| StoreFault::invalid_role(column(0).unwrap_or("missing")))?;
    let workspace = match column(1) {
        None => None,
        Some(name) => {
            let id = row.try_get::<_, Option<Id>>(1);
            let Id(id) = id
                .map_err(|_| StoreFault::invalid_id(name))?
                .ok_or_else(|| StoreFault::invalid_id("null"))?;
            Some(workspace_id(&id)?)
        }
    };
    Ok(MemberRow {
        role: role.map(|Text(role)| role),
        workspace,
    })
}

fn query_fault(error: &Error) -> StoreFault {
    match fault(error) {
        StoreFault::Refused(message) => StoreFault::query(message),
        fault => fault,
    }
}

fn is_invalid_value(error: &Error) -> bool {
    let code = error.code();
    code == Some(&SqlState::INVALID_TEXT_REPRESENTATION)
        || code == Some(&SqlState::NUMERIC_VALUE_OUT_OF_RANGE)
}
