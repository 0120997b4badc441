//! Memberships in a database of PostgreSQL's, which is only read.

use std::{rc::Rc, sync::Arc, time::Duration};

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod,
};
use futures_util::{TryStreamExt as _, future::LocalBoxFuture};
use policies::StoreName;
use rustls::ClientConfig;
use tokio_postgres::{Config, Row, error::SqlState};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    error::{describe, fault},
    text::{Id, Literal, Text},
};
use crate::{
    outbound::USER_AGENT,
    stores::{
        health::{Health, Probe},
        members::{MAX_ROWS, MemberDatabase, MemberRow, QueryError, check, workspace_id},
    },
};

/// How many connections there are at most.
const MAX_CONNECTIONS: usize = 8;

/// A database that is asked.
pub(in crate::stores) struct PostgresMembers {
    pool: Pool,
    timeout: Duration,
    health: Arc<Health>,
}

impl PostgresMembers {
    /// Connects when it is asked.
    pub(in crate::stores) fn new(
        name: &StoreName,
        config: &Config,
        timeout: Duration,
        tls: &Arc<ClientConfig>,
    ) -> Self {
        let mut config = config.clone();
        config.connect_timeout(timeout);
        if config.get_application_name().is_none() {
            config.application_name(USER_AGENT);
        }
        let manager = Manager::from_config(
            config,
            MakeRustlsConnect::new((**tls).clone()),
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        // What every connection begins with: whatever a query says, nothing is written, and the server ends what
        // takes too long.
        let begin: Arc<str> = format!(
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY; SET statement_timeout = {}",
            timeout.as_millis().max(1)
        )
        .into();
        let pool = Pool::builder(manager)
            .max_size(MAX_CONNECTIONS)
            .post_create(Hook::async_fn(move |client, _| {
                let begin = begin.clone();
                Box::pin(async move {
                    client
                        .batch_execute(&begin)
                        .await
                        .map_err(HookError::Backend)
                })
            }))
            .build()
            .expect("a pool without timeouts of its own needs no runtime");
        Self {
            pool,
            timeout,
            health: Health::new(name.clone()),
        }
    }
}

impl PostgresMembers {
    /// Asks the server whether it answers.
    fn probe(&self) -> Probe {
        let (pool, timeout) = (self.pool.clone(), self.timeout);
        Rc::new(move || {
            let pool = pool.clone();
            Box::pin(async move {
                let probe = async {
                    let client = pool.get().await.map_err(|error| error.to_string())?;
                    let asked = client.simple_query("").await;
                    asked.map(drop).map_err(|error| describe(&error))
                };
                let probed = tokio::time::timeout(timeout, probe).await;
                probed.unwrap_or_else(|_| Err(QueryError::Timeout.to_string()))
            })
        })
    }
}

impl MemberDatabase for PostgresMembers {
    fn members<'a>(
        &'a self,
        query: &'a str,
        user: &'a str,
        workspace: &'a str,
    ) -> LocalBoxFuture<'a, Result<Vec<MemberRow>, QueryError>> {
        Box::pin(async move {
            check(&self.health)?;
            let asking = select(&self.pool, query, user, workspace);
            let answer = tokio::time::timeout(self.timeout, asking).await;
            let answer = answer.unwrap_or(Err(QueryError::Timeout));
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

async fn select(
    pool: &Pool,
    query: &str,
    user: &str,
    workspace: &str,
) -> Result<Vec<MemberRow>, QueryError> {
    let client = pool.get().await.map_err(|error| match error {
        PoolError::Backend(error) => QueryError::Down(describe(&error)),
        error => QueryError::Down(error.to_string()),
    })?;
    let found = async {
        let statement = client.prepare_cached(query).await?;
        let rows = client
            .query_raw(&statement, [Literal(user), Literal(workspace)])
            .await?;
        let mut rows = std::pin::pin!(rows);
        let mut found = Vec::new();
        while found.len() < MAX_ROWS
            && let Some(row) = rows.try_next().await?
        {
            found.push(row);
        }
        Ok(found)
    };
    let rows = match found.await {
        Ok(rows) => rows,
        // An identifier that the column cannot hold is nobody's.
        Err(error) if is_no_value(&error) => return Ok(Vec::new()),
        Err(error) => return Err(fault(&error)),
    };
    rows.iter().map(member).collect()
}

fn member(row: &Row) -> Result<MemberRow, QueryError> {
    let column = |index: usize| row.columns().get(index).map(|column| column.type_().name());
    let role = row.try_get::<_, Option<Text>>(0);
    let role = role.map_err(|_| QueryError::no_text(column(0).unwrap_or("missing")))?;
    let workspace = match column(1) {
        None => None,
        Some(name) => {
            let id = row.try_get::<_, Option<Id>>(1);
            let Id(id) = id
                .map_err(|_| QueryError::no_id(name))?
                .ok_or_else(|| QueryError::no_id("null"))?;
            Some(workspace_id(&id)?)
        }
    };
    Ok(MemberRow {
        role: role.map(|Text(role)| role),
        workspace,
    })
}

fn is_no_value(error: &tokio_postgres::Error) -> bool {
    let code = error.code();
    code == Some(&SqlState::INVALID_TEXT_REPRESENTATION)
        || code == Some(&SqlState::NUMERIC_VALUE_OUT_OF_RANGE)
}
