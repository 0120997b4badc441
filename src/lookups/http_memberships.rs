//! Memberships that the app is asked about.

use std::{sync::Arc, time::Duration};

use actix_web::http::{
    Method, StatusCode,
    header::{HeaderName, HeaderValue},
};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use policies::{
    Fault, Member, Memberships, PolicyName, SubjectId, UrlTemplate, WorkspaceId,
    WorkspaceMemberSettings,
};
use secrecy::SecretString;
use serde::Deserialize;

use super::{MAX_ANSWER_BYTES, Turns, authorization, fault};
use crate::{
    answers::{Answer, Answers, ServiceFault},
    digest::digest,
    http_client::{HttpError, Outbound, Outgoing},
};

/// Asks the app by GET.
pub struct HttpMemberships {
    policy: PolicyName,
    url: UrlTemplate,
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
    answers: Answers<Option<Member>>,
    turns: Arc<Turns>,
    outbound: Outbound,
}

impl HttpMemberships {
    /// Asks as the settings of the policy say.
    #[must_use]
    pub fn new(
        policy: PolicyName,
        url: &UrlTemplate,
        settings: &WorkspaceMemberSettings,
        token: Option<&SecretString>,
        turns: &Arc<Turns>,
        outbound: &Outbound,
    ) -> Self {
        Self {
            policy,
            url: url.clone(),
            headers: authorization(token),
            timeout: settings.timeout.get(),
            answers: Answers::new(
                settings.cache.map(policies::Interval::get),
                Option::is_none,
                outbound.clock.clone(),
            ),
            turns: turns.clone(),
            outbound: outbound.clone(),
        }
    }

    async fn ask(&self, workspace: &str, user: &str) -> Answer<Option<Member>> {
        let asking = async {
            let part = format!("policies.{}", self.policy);
            let _turn = self.turns.turn(&part, user).await;
            self.look_up(workspace, user).await
        };
        let answer = tokio::time::timeout(self.timeout, asking).await;
        let answer = answer.unwrap_or(Err(HttpError::Timeout.into()));
        let metrics = &self.outbound.metrics;
        metrics.policy_called(&self.policy, answer.is_ok());
        answer
    }

    async fn look_up(&self, workspace: &str, user: &str) -> Answer<Option<Member>> {
        #[derive(Deserialize)]
        struct Found {
            #[serde(default)]
            role: Option<String>,
        }

        let url = self.url.fill(workspace, user);
        let outgoing = Outgoing {
            method: Method::GET,
            url: &url,
            headers: self.headers.clone(),
            body: Bytes::new(),
            timeout: self.timeout,
            limit: MAX_ANSWER_BYTES,
        };
        let answer = self.outbound.http.send(outgoing).await?;
        match answer.status {
            StatusCode::OK => serde_json::from_slice(&answer.body)
                .map(|Found { role }| {
                    let roles = role.into_iter().collect();
                    Some(Member { roles })
                })
                .map_err(|_| ServiceFault::Nonsense("is no JSON object with a role")),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(ServiceFault::Status(status.as_u16())),
        }
    }
}

impl Memberships for HttpMemberships {
    fn find<'a>(
        &'a self,
        workspace: &'a WorkspaceId,
        user: &'a SubjectId,
    ) -> LocalBoxFuture<'a, Result<Option<Member>, Fault>> {
        Box::pin(async move {
            let (workspace, user) = (workspace.as_str(), user.as_str());
            // Segments that would lead elsewhere are nobody's names.
            if [workspace, user]
                .iter()
                .any(|text| matches!(*text, "." | ".."))
            {
                return Ok(None);
            }
            let asked = digest([workspace, user]);
            let answer = self.answers.get(&asked, self.ask(workspace, user)).await;
            answer.map_err(fault)
        })
    }
}
