//! Memberships in a PostgreSQL database, which is only read.

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use futures_util::{TryStreamExt as _, future::LocalBoxFuture};
use tokio::{runtime::Handle, time::timeout};
use tokio_postgres::{Client, Error, Row, Statement, error::SqlState};

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

/// Per connection: one for each policy, and those from before a reload.
const MAX_STATEMENTS: usize = 64;

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
    /// Connects on the first query.
    pub(super) fn new(url: &PostgresUrl, opening: &Opening<'_>) -> Self {
        Self {
            connector: Connector::new(url, opening),
            pool: Pool::new(MAX_CONNECTIONS),
            health: opening.health(),
        }
    }

    async fn connect(&self, within: Duration) -> Result<Connection, Unreachable> {
        // Whatever a query says, nothing is written, and the server cancels what takes too long.
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
        // A probe tests only the connection, so a wrong query does not hide that it works.
        self.health.works();
        Ok(connection)
    }

    /// Queries on a connection of its own. A query only reads, so it is repeated if a kept connection broke.
    async fn select(
        &self,
        query: &str,
        parameters: [&str; 2],
    ) -> Result<Vec<MemberRow>, StoreFault> {
        let turn = self.pool.turn(self.health.returns()).await;
        loop {
            let kept = turn.idle_connection();
            let was_kept = kept.is_some();
            let mut connection = match kept {
                Some(kept) => kept,
                None => self.connect(self.health.timeout() * 9 / 10).await?,
            };
            let Connection {
                session,
                statements,
            } = &mut connection;
            let mut end = EndQuery {
                client: Some(&session.client),
                of: self,
            };
            let selected = select(&session.client, statements, query, parameters).await;
            let is_whole = !matches!(selected, Ok((_, false)));
            if is_whole {
                end.client = None;
            }
            drop(end);
            let answer = match selected {
                Ok((rows, _)) => rows.iter().map(member).collect(),
                // No member has an identifier that the column cannot hold.
                Err(error) if is_no_value(&error) => Ok(Vec::new()),
                Err(error) => Err(match fault(&error) {
                    StoreFault::Refused(message) => StoreFault::of_query(message),
                    fault => fault,
                }),
            };
            match answer {
                Err(StoreFault::Broken(_)) if was_kept => continue,
                Err(StoreFault::Broken(_)) => {}
                _ if is_whole => turn.give_back(connection),
                _ => {}
            }
            return answer;
        }
    }
}

/// Cancels a query on the server when it is dropped.
struct EndQuery<'a> {
    client: Option<&'a Client>,
    of: &'a Members,
}

impl Drop for EndQuery<'_> {
    fn drop(&mut self) {
        // A thread that ends has no runtime any more; then the server's own timeout ends the query.
        let (Some(client), Ok(runtime)) = (self.client, Handle::try_current()) else {
            return;
        };
        let (query, tls) = (client.cancel_token(), self.of.connector.tls());
        let within = self.of.health.timeout();
        runtime.spawn(async move {
            let ended = timeout(within, query.cancel_query(tls)).await;
            if !matches!(ended, Ok(Ok(()))) {
                tracing::debug!("a query that was given up could not be cancelled");
            }
        });
    }
}

/// At most [`MAX_ROWS`] rows, and whether these are all.
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
