//! What the chain decides about a described request. Consumes nothing.

use std::net::{IpAddr, Ipv4Addr};

use actix_web::http::header::{self, HeaderValue};
use futures_util::future::ready;
use policies::{
    AcceptedIdentities, BoxFuture, Claims, Clock, Credentials, DeclaredFile, Outcome, Pass,
    Presented, Purpose, RoutePath, Step, Subject, SubjectId, Trace, UploadRequest, WorkspaceId,
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::rules::{Route, Rules};
use crate::identities::{AppliedLimits, InMemoryRequest, RequestCredentials};

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

/// The id of a workspace: 1 to 255 bytes without control characters.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = WorkspaceId)]
#[expect(
    dead_code,
    reason = "it describes what a request says, and is none of it"
)]
pub(crate) enum Id {
    /// As a text.
    Text(String),
    /// As an integer, which is the text of its digits.
    Integer(i64),
}

/// What a chain decides about a described request.
pub struct Explained {
    pub route: RoutePath,
    pub outcome: Outcome,
    /// The result of each policy, up to the one that ended the request.
    pub steps: Vec<Step>,
}

#[derive(Debug, thiserror::Error)]
#[error("there is no route `{0}`")]
pub struct UnknownRoute(String);

pub async fn explain(
    rules: &Rules,
    clock: &dyn Clock,
    described: DescribedRequest,
) -> Result<Explained, UnknownRoute> {
    let route = match &described.route {
        None => rules.routes.first(),
        Some(path) => rules.route(path),
    };
    let route = route.ok_or_else(|| UnknownRoute(described.route.clone().unwrap_or_default()))?;
    let request = upload_request(route, described);
    let mut trace = Trace::new(clock);
    let chain = &route.chain;
    let evaluation = chain.evaluate_and_trace(&request, Pass::Preview, &mut trace);
    Ok(Explained {
        route: route.path.clone(),
        outcome: evaluation.await.outcome,
        steps: trace.into_steps(),
    })
}

fn upload_request(route: &Route, described: DescribedRequest) -> UploadRequest {
    let credentials: Box<dyn Credentials> = match (described.subject, described.token) {
        (None, Some(token)) => Box::new(RequestCredentials::new(
            InMemoryRequest::default().with_header(header::AUTHORIZATION, token.0),
            route.identities.clone(),
            AppliedLimits::None,
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
