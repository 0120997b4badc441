//! What the chain decides about a described request. Consumes nothing.

use std::net::{IpAddr, Ipv4Addr};

use actix_web::http::header::{self, HeaderValue};
use futures_util::future::{Either, ready, select};
use policies::{
    AcceptedIdentities, BoxFuture, BuildError, Claims, Clock, Credentials, DeclaredFile, Outcome,
    Pass, PolicyName, Presented, Purpose, RoutePath, StepResult, Subject, SubjectId, Trace,
    UploadRequest, WorkspaceId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    config::Settings,
    gate::rules::Route,
    http::{Gate, body::Id, error::ApiError},
    identities::{InMemoryCredentials, Limited, RequestCredentials},
    outbound::tls_config,
    server::{build::Foundation, in_flight::InFlight},
};

/// A request, as an operator describes it.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DescribedRequest {
    /// The path of a route; left out: the first one.
    #[serde(default)]
    pub route: Option<String>,
    /// Who asks, believed as it stands; left out, as `token` is: nobody.
    #[serde(default)]
    pub subject: Option<DescribedSubject>,
    /// A bearer token, which is verified.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub token: Option<BearerToken>,
    /// The workspace that is named.
    #[serde(default)]
    #[schema(value_type = Option<Id>)]
    pub workspace: Option<WorkspaceId>,
    /// The purpose that is named.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub purpose: Option<Purpose>,
    /// The file that is declared.
    #[serde(default)]
    pub file: Option<DescribedFile>,
    /// The client's address; left out: 127.0.0.1.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub ip: Option<IpAddr>,
}

/// Who asks.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DescribedSubject {
    /// Its identifier.
    #[schema(value_type = String)]
    pub id: SubjectId,
    /// What else is known about it.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub claims: Claims,
}

/// A bearer token, as a request can carry it.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct BearerToken(HeaderValue);

impl TryFrom<String> for BearerToken {
    type Error = &'static str;

    // The message does not show the token.
    fn try_from(token: String) -> Result<Self, Self::Error> {
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        let mut value = value.map_err(|_| "`token` has a character that no header can carry")?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

/// A file that is declared, as in the body of a request.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DescribedFile {
    name: Option<String>,
    #[serde(alias = "mime_type")]
    mime_type: Option<String>,
    #[schema(format = "uint64")]
    size: Option<u64>,
}

/// What the chain says.
#[derive(Debug, Serialize, ToSchema)]
pub struct Explanation {
    /// The route that was asked.
    #[schema(value_type = String)]
    pub route: RoutePath,
    /// How it ends.
    pub outcome: ExplainedOutcome,
    /// The status that a client would get; 200 if Imgwire gave a token.
    pub status: u16,
    /// The code that a client would get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// What each policy said, up to the one that ended it.
    pub policies: Vec<ExplainedPolicy>,
}

/// How a described request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExplainedOutcome {
    /// Every policy agreed.
    Allow,
    /// A policy refused.
    Deny,
    /// A policy could not tell.
    Fault,
}

/// What one policy said.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplainedPolicy {
    /// Its name.
    #[schema(value_type = String)]
    pub name: PolicyName,
    /// Its kind.
    pub kind: &'static str,
    /// `allow`, `deny`, `fault`, or `skip` where its condition is false.
    pub verdict: &'static str,
    /// Why; and whether it made no difference, because the policy is observed or may fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it took, in microseconds.
    pub micros: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("there is no route `{0}`")]
pub struct UnknownRoute(String);

pub async fn explain(
    gate: &Gate,
    described: DescribedRequest,
) -> Result<Explanation, UnknownRoute> {
    let rules = gate.rules.load_full();
    let route = match &described.route {
        None => rules.routes.first(),
        Some(path) => rules.route(path),
    };
    let route = route.ok_or_else(|| UnknownRoute(described.route.clone().unwrap_or_default()))?;
    let request = upload_request(route, described);
    let mut trace = Trace::new(&*gate.clock);
    let chain = &route.chain;
    let evaluation = chain.evaluate_and_trace(&request, Pass::Preview, &mut trace);
    let (outcome, result) = match evaluation.await.outcome {
        // A preview reserves nothing.
        Outcome::Allowed(_) => (ExplainedOutcome::Allow, Ok(())),
        Outcome::Denied { denial, .. } => (ExplainedOutcome::Deny, Err(ApiError::Denied(denial))),
        Outcome::Faulted { .. } => (ExplainedOutcome::Fault, Err(ApiError::Internal)),
    };
    let (status, code) = ApiError::describe_result(&result);
    Ok(Explanation {
        route: route.path.clone(),
        outcome,
        status,
        code,
        policies: trace.into_steps().into_iter().map(explained).collect(),
    })
}

fn explained(step: policies::Step) -> ExplainedPolicy {
    let (verdict, reason) = match step.result {
        StepResult::Allow => ("allow", None),
        StepResult::Skip => ("skip", Some("its condition is false".to_owned())),
        StepResult::Deny(reason) => ("deny", Some(reason)),
        StepResult::Fault(reason) => ("fault", Some(reason)),
    };
    let mut reasons = Vec::new();
    if let Some(reason) = reason {
        let overlooked = if step.tolerated { " (overlooked)" } else { "" };
        reasons.push(format!("{reason}{overlooked}"));
    }
    if let Some(error) = step.condition_error {
        reasons.push(format!("its condition is not false: {error}"));
    }
    ExplainedPolicy {
        name: step.policy,
        kind: step.kind,
        verdict,
        reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
        micros: u64::try_from(step.took.as_micros()).unwrap_or(u64::MAX),
    }
}

fn upload_request(route: &Route, described: DescribedRequest) -> UploadRequest {
    let credentials: Box<dyn Credentials> = match (described.subject, described.token) {
        (None, Some(token)) => Box::new(RequestCredentials::new(
            InMemoryCredentials::default().with_header(header::AUTHORIZATION, token.0),
            route.identities.clone(),
            Limited::Nothing,
        )),
        (subject, _) => Box::new(Described(subject)),
    };
    UploadRequest {
        route: route.path.clone(),
        workspace: described.workspace,
        purpose: described.purpose.or_else(|| route.purpose.clone()),
        file: described.file.map(|file| DeclaredFile {
            name: file.name,
            mime_type: file.mime_type,
            size: file.size,
        }),
        ip: described.ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        credentials,
    }
}

/// A subject whose identity is the first one that the chain accepts, or nobody.
struct Described(Option<DescribedSubject>);

impl Credentials for Described {
    fn authenticate<'a>(&'a self, accept: &'a AcceptedIdentities) -> BoxFuture<'a, Presented> {
        let presented = match (&self.0, accept.first()) {
            (Some(subject), Some(identity)) => {
                let subject = Subject {
                    id: subject.id.clone(),
                    identity: identity.clone(),
                    session: false,
                    claims: subject.claims.clone(),
                    expires_at: None,
                };
                Presented::Subject(subject.into())
            }
            _ => Presented::Nothing,
        };
        Box::pin(ready(Ok(presented)))
    }
}

/// A gate without listeners that only explains decisions. It opens stores read-only.
pub struct Inspector(Gate);

impl Inspector {
    /// With `counted`, quotas show what their stores hold; otherwise all counters are empty.
    pub fn new(
        settings: &Settings,
        counted: bool,
        clock: std::sync::Arc<dyn Clock>,
    ) -> Result<Self, BuildError> {
        let tls = tls_config(&settings.authorities);
        let foundation = Foundation::new(settings, &tls, &clock);
        let rules = foundation.look(settings, counted)?;
        Ok(Self(foundation.gate(rules, None, &InFlight::new(1))))
    }

    /// Fetches keys of issuers if needed.
    pub async fn explain(&self, described: DescribedRequest) -> Result<Explanation, UnknownRoute> {
        let explaining = std::pin::pin!(explain(&self.0, described));
        let identities = self.0.rules.load().identities.clone();
        let keeping_keys = std::pin::pin!(identities.keep_keys());
        match select(explaining, keeping_keys).await {
            Either::Left((explanation, _)) => explanation,
            // No issuer publishes keys.
            Either::Right(((), explaining)) => explaining.await,
        }
    }
}
