//! Memberships from the app's HTTP API.

use std::{sync::Arc, time::Duration};

use actix_web::http::{
    Method, StatusCode,
    header::{HeaderName, HeaderValue},
};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use policies::{
    Fault, Member, MemberAnswer, Memberships, PathSegment, PolicyName, SubjectId, UrlTemplate,
    WorkspaceId, WorkspaceMemberSettings,
};
use secrecy::SecretString;

use super::{MAX_ANSWER_BYTES, SpellingWarning, Turns, authorization, fault};
use crate::outbound::{
    HttpError, Object, Outbound, Outgoing, Repeat,
    answers::{Answer, Answers, ServiceFault},
    digest::digest,
};
use crate::telemetry::CallResult;

pub struct HttpMemberships {
    policy: PolicyName,
    url: UrlTemplate,
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
    answers: Answers<Option<Member>>,
    spelling: SpellingWarning,
    turns: Arc<Turns>,
    outbound: Outbound,
}

impl HttpMemberships {
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
                outbound,
            ),
            spelling: SpellingWarning::default(),
            turns: turns.clone(),
            outbound: outbound.clone(),
        }
    }

    async fn ask(
        &self,
        (workspace, segment): (PathSegment<'_>, PathSegment<'_>),
        user: &str,
    ) -> Answer<Option<Member>> {
        let asking = async {
            let part = format!("policies.{}", self.policy);
            let _turn = self.turns.turn(&part, user).await;
            self.look_up(&self.url.fill(workspace, segment)).await
        };
        let answer = tokio::time::timeout(self.timeout, asking).await;
        let answer = answer.unwrap_or(Err(HttpError::Timeout.into()));
        let (metrics, result) = (&self.outbound.metrics, CallResult::of(&answer));
        metrics.policy_calls(self.policy.clone(), result).inc();
        if let Ok(Some(member)) = &answer {
            self.spelling.check(&self.policy, member);
        }
        answer
    }

    async fn look_up(&self, url: &str) -> Answer<Option<Member>> {
        let outgoing = Outgoing {
            method: Method::GET,
            url,
            headers: self.headers.clone(),
            body: Bytes::new(),
            timeout: self.timeout,
            limit: MAX_ANSWER_BYTES,
            repeat: Repeat::Harmless,
        };
        let answer = self.outbound.http.send(outgoing).await?;
        match answer.status {
            StatusCode::OK => {
                let mut found = Object::parse(&answer.body)?;
                let member = Member {
                    roles: found.take_texts("role")?,
                    workspace: found.take_id("workspace")?,
                };
                Ok(Some(member))
            }
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
    ) -> LocalBoxFuture<'a, Result<MemberAnswer, Fault>> {
        Box::pin(async move {
            let (workspace, user) = (workspace.as_str(), user.as_str());
            // Keyed by the question: each spelling of a workspace has its own answer, which names the intended
            // workspace.
            let asked = digest([workspace, user]);
            let segments = PathSegment::parse(workspace).zip(PathSegment::parse(user));
            let Some(segments) = segments else {
                return Ok(MemberAnswer::NotAsked);
            };
            let answer = self.answers.get(&asked, self.ask(segments, user)).await;
            answer.map(MemberAnswer::from).map_err(fault)
        })
    }
}
