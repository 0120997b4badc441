//! Memberships from a database.

use std::{sync::Arc, time::Duration};

use futures_util::future::LocalBoxFuture;
use policies::{
    Fault, Member, MemberAnswer, Memberships, PolicyName, StoreName, SubjectId, WorkspaceId,
    WorkspaceMemberSettings,
};

use super::{SpellingWarning, Turns};
use crate::{
    outbound::{Outbound, answers::Answers, digest::digest},
    stores::{MemberDatabase, StoreFault},
    telemetry::{CallResult, Metrics},
};

pub struct SqlMemberships {
    policy: PolicyName,
    store: StoreName,
    database: Arc<dyn MemberDatabase>,
    query: String,
    timeout: Duration,
    answers: Answers<Option<Member>, StoreFault>,
    spelling: SpellingWarning,
    turns: Arc<Turns>,
    metrics: Arc<Metrics>,
}

impl SqlMemberships {
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
                outbound,
            ),
            spelling: SpellingWarning::default(),
            turns: turns.clone(),
            metrics: outbound.metrics.clone(),
        }
    }

    async fn ask(&self, workspace: &str, user: &str) -> Result<Option<Member>, StoreFault> {
        let asking = async {
            // Policies that use one database share its connections.
            let part = format!("stores.{}", self.store);
            let _turn = self.turns.turn(&part, user).await;
            self.look_up(workspace, user).await
        };
        let answer = tokio::time::timeout(self.timeout, asking).await;
        let answer = answer.unwrap_or(Err(StoreFault::Timeout));
        let result = CallResult::of(&answer);
        self.metrics.policy_calls(self.policy.clone(), result).inc();
        if let Ok(Some(member)) = &answer {
            self.spelling.check(&self.policy, member);
        }
        answer
    }

    async fn look_up(&self, workspace: &str, user: &str) -> Result<Option<Member>, StoreFault> {
        let rows = self.database.members(&self.query, user, workspace).await?;
        let mut rows = rows.into_iter();
        let Some(first) = rows.next() else {
            return Ok(None);
        };
        let mut member = Member {
            roles: first.role.into_iter().collect(),
            workspace: first.workspace,
        };
        for row in rows {
            if row.workspace != member.workspace {
                let message = "its rows name different workspaces".to_owned();
                return Err(StoreFault::Refused(format!("the query fails: {message}")));
            }
            member.roles.extend(row.role);
        }
        Ok(Some(member))
    }
}

impl Memberships for SqlMemberships {
    fn find<'a>(
        &'a self,
        workspace: &'a WorkspaceId,
        user: &'a SubjectId,
    ) -> LocalBoxFuture<'a, Result<MemberAnswer, Fault>> {
        Box::pin(async move {
            let (workspace, user) = (workspace.as_str(), user.as_str());
            // Keyed by the question: each spelling of a workspace has its own answer, which names the intended
            // workspace.
            let asked = digest([workspace, user]);
            let answer = self.answers.get(&asked, self.ask(workspace, user)).await;
            answer
                .map(MemberAnswer::from)
                .map_err(|error| Fault::Store {
                    store: self.store.clone(),
                    source: Box::new(error),
                })
        })
    }
}
