//! Looks up memberships in the app's HTTP API or in a database.

use std::{
    sync::{Arc, Once},
    time::Duration,
};

use actix_web::http::{
    Method, StatusCode,
    header::{HeaderName, HeaderValue},
};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use policies::{
    BoxFuture, CallSettings, Fault, Member, MemberAnswer, Memberships, PolicyName, StoreName,
    SubjectId, WorkspaceId,
};

use super::lookup_slots::LookupSlots;
use crate::{
    config::service_url::{PathSegment, UrlTemplate},
    outbound::{
        HttpClient, HttpError, JsonObject, Outbound, OutboundRequest, Resend,
        cache::{HeapSize, error_heap_size},
        digest::digest,
        single_flight::{ServiceFault, SingleFlightCache},
    },
    stores::{MemberDatabase, StoreFault},
    telemetry::{CallResult, Metrics},
};

const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// A source of memberships.
pub(super) trait Source: Send + Sync {
    type Question<'a>;
    type Fault: Clone + HeapSize + Send + Sync;

    const TIMEOUT: Self::Fault;

    /// `None` if the source cannot look up these ids.
    fn question<'a>(&self, workspace: &'a str, user: &'a str) -> Option<Self::Question<'a>>;

    async fn look_up(&self, question: Self::Question<'_>) -> Result<Option<Member>, Self::Fault>;

    fn fault(&self, fault: Self::Fault) -> Fault;

    /// What the source returns, if it can tell without a lookup.
    async fn describe(&self) -> Result<Option<String>, Self::Fault> {
        Ok(None)
    }
}

/// The memberships of one policy.
pub(super) struct SourceMemberships<S: Source> {
    source: S,
    policy: PolicyName,
    /// The part of the config whose lookups share a limit per user.
    part: String,
    timeout: Duration,
    answers: SingleFlightCache<Option<Member>, S::Fault>,
    spelling_warning: Once,
    slots: Arc<LookupSlots>,
    metrics: Arc<Metrics>,
}

impl<S: Source> SourceMemberships<S> {
    pub(super) fn new(
        source: S,
        policy: PolicyName,
        part: String,
        call: CallSettings,
        slots: &Arc<LookupSlots>,
        outbound: &Outbound,
    ) -> Arc<Self> {
        Arc::new(Self {
            source,
            policy,
            part,
            timeout: call.timeout.get(),
            answers: SingleFlightCache::new(
                call.cache.map(policies::Interval::get),
                Option::is_none,
                outbound,
            ),
            spelling_warning: Once::new(),
            slots: slots.clone(),
            metrics: outbound.metrics.clone(),
        })
    }

    async fn ask(&self, question: S::Question<'_>, user: &str) -> Result<Option<Member>, S::Fault> {
        let asking = async {
            let _slot = self.slots.acquire(&self.part, user).await;
            self.source.look_up(question).await
        };
        let answer = tokio::time::timeout(self.timeout, asking).await;
        let answer = answer.unwrap_or(Err(S::TIMEOUT));
        let result = CallResult::of(&answer);
        self.metrics.policy_calls(self.policy.clone(), result).inc();
        if let Ok(Some(member)) = &answer
            && member.workspace.is_none()
        {
            self.spelling_warning.call_once(|| {
                tracing::warn!(
                    target: "imgwire_gate::gate::ports",
                    policy = self.policy.as_str(),
                    "membership source names no workspace, so each spelling of its id has separate limits"
                );
            });
        }
        answer
    }
}

impl<S: Source> Memberships for SourceMemberships<S> {
    fn find<'a>(
        &'a self,
        workspace: &'a WorkspaceId,
        user: &'a SubjectId,
    ) -> LocalBoxFuture<'a, Result<MemberAnswer, Fault>> {
        Box::pin(async move {
            let (workspace, user) = (workspace.as_str(), user.as_str());
            let Some(question) = self.source.question(workspace, user) else {
                return Ok(MemberAnswer::NotAsked);
            };
            // The ids as the client sent them are the key. The answer names the workspace that the source found.
            let asked = digest([workspace, user]);
            let answer = self.answers.get(&asked, self.ask(question, user)).await;
            answer
                .map(MemberAnswer::from)
                .map_err(|fault| self.source.fault(fault))
        })
    }

    fn describe(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async {
            let described = self.source.describe().await;
            described.map_err(|fault| self.source.fault(fault))
        })
    }
}

/// The app's HTTP API.
pub(super) struct Service {
    pub(super) url: UrlTemplate,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) timeout: Duration,
    pub(super) http: HttpClient,
}

impl Source for Service {
    type Question<'a> = (PathSegment<'a>, PathSegment<'a>);
    type Fault = ServiceFault;

    const TIMEOUT: ServiceFault = ServiceFault::Http(HttpError::Timeout);

    fn question<'a>(&self, workspace: &'a str, user: &'a str) -> Option<Self::Question<'a>> {
        PathSegment::parse(workspace).zip(PathSegment::parse(user))
    }

    async fn look_up(
        &self,
        (workspace, user): Self::Question<'_>,
    ) -> Result<Option<Member>, ServiceFault> {
        let outgoing = OutboundRequest {
            method: Method::GET,
            url: &self.url.fill(workspace, user),
            headers: self.headers.clone(),
            body: Bytes::new(),
            timeout: self.timeout,
            max_response_bytes: MAX_RESPONSE_BYTES,
            resend: Resend::Safe,
        };
        let answer = self.http.send(outgoing).await?;
        match answer.status {
            StatusCode::OK => {
                let mut found = JsonObject::parse(&answer.body)?;
                let member = Member {
                    roles: found.take_strings("role")?,
                    workspace: found.take_id("workspace")?,
                };
                Ok(Some(member))
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(answer.unexpected_status()),
        }
    }

    fn fault(&self, fault: ServiceFault) -> Fault {
        Fault::Service(Box::new(fault))
    }
}

/// A query in a database.
struct Query {
    store: StoreName,
    database: Arc<dyn MemberDatabase>,
    query: String,
    timeout: Duration,
}

/// The memberships that `query` finds in `database`.
pub fn query_memberships(
    policy: PolicyName,
    store: StoreName,
    database: Arc<dyn MemberDatabase>,
    query: &str,
    call: CallSettings,
    slots: &Arc<LookupSlots>,
    outbound: &Outbound,
) -> Arc<dyn Memberships> {
    // Policies that use one database share its connections.
    let part = format!("stores.{store}");
    let query = Query {
        store,
        database,
        query: query.to_owned(),
        timeout: call.timeout.get(),
    };
    SourceMemberships::new(query, policy, part, call, slots, outbound)
}

impl Source for Query {
    type Question<'a> = (&'a str, &'a str);
    type Fault = StoreFault;

    const TIMEOUT: StoreFault = StoreFault::Timeout;

    fn question<'a>(&self, workspace: &'a str, user: &'a str) -> Option<Self::Question<'a>> {
        Some((workspace, user))
    }

    async fn look_up(
        &self,
        (workspace, user): Self::Question<'_>,
    ) -> Result<Option<Member>, StoreFault> {
        let rows = self
            .database
            .members(&self.query, user, workspace, self.timeout)
            .await?;
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
                let message = "the query fails: its rows name different workspaces";
                return Err(StoreFault::Refused(message.to_owned()));
            }
            member.roles.extend(row.role);
        }
        Ok(Some(member))
    }

    fn fault(&self, fault: StoreFault) -> Fault {
        Fault::Store {
            store: self.store.clone(),
            source: Box::new(fault),
        }
    }

    async fn describe(&self) -> Result<Option<String>, StoreFault> {
        let columns = self.database.columns(&self.query).await?;
        Ok(Some(format!("the query returns {}", columns.join(", "))))
    }
}

impl HeapSize for StoreFault {
    fn heap_size(&self) -> usize {
        error_heap_size(self)
    }
}
