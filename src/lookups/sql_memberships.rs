//! Memberships that a database is asked about.

use std::{sync::Arc, time::Duration};

use futures_util::future::LocalBoxFuture;
use policies::{
    Fault, Member, Memberships, PolicyName, StoreName, SubjectId, WorkspaceId,
    WorkspaceMemberSettings,
};

use super::Turns;
use crate::{
    answers::Answers,
    digest::digest,
    http_client::Outbound,
    stores::{MemberDatabase, StoreFault},
    telemetry::Metrics,
};

/// Asks by a query.
pub struct SqlMemberships {
    policy: PolicyName,
    store: StoreName,
    database: Arc<dyn MemberDatabase>,
    query: String,
    timeout: Duration,
    answers: Answers<Option<Member>, StoreFault>,
    turns: Arc<Turns>,
    metrics: Arc<Metrics>,
}

impl SqlMemberships {
    /// Asks a database as the settings of the policy say.
    #[must_use]
    pub fn new(
        policy: PolicyName,
        store: StoreName,
        database: Arc<dyn MemberDatabase>,
        query: &str,
        settings: &WorkspaceMemberSettings,
        turns: &Arc<Turns>,
        outbound: &Outbound,
    ) -> Self {
        Self {
            policy,
            store,
            database,
            query: query.to_owned(),
            timeout: settings.timeout.get(),
            answers: Answers::new(
                settings.cache.map(policies::Interval::get),
                Option::is_none,
                outbound.clock.clone(),
            ),
            turns: turns.clone(),
            metrics: outbound.metrics.clone(),
        }
    }

    async fn ask(&self, workspace: &str, user: &str) -> Result<Option<Member>, StoreFault> {
        let asking = async {
            // Policies that ask one database share its connections.
            let part = format!("stores.{}", self.store);
            let _turn = self.turns.turn(&part, user).await;
            let database = &self.database;
            database.first_column(&self.query, user, workspace).await
        };
        let answer = tokio::time::timeout(self.timeout, asking).await;
        let answer = answer.unwrap_or(Err(StoreFault::Timeout));
        self.metrics.policy_called(&self.policy, answer.is_ok());
        let roles = answer?;
        Ok((!roles.is_empty()).then(|| Member {
            roles: roles.into_iter().flatten().collect(),
        }))
    }
}

impl Memberships for SqlMemberships {
    fn find<'a>(
        &'a self,
        workspace: &'a WorkspaceId,
        user: &'a SubjectId,
    ) -> LocalBoxFuture<'a, Result<Option<Member>, Fault>> {
        Box::pin(async move {
            let (workspace, user) = (workspace.as_str(), user.as_str());
            let asked = digest([workspace, user]);
            let answer = self.answers.get(&asked, self.ask(workspace, user)).await;
            answer.map_err(|error| Fault::Store {
                store: self.store.clone(),
                source: Box::new(error),
            })
        })
    }
}
