//! Explains what a chain decides about a described request, without consuming anything.

use std::net::{IpAddr, Ipv4Addr};

use actix_web::http::header::{self, HeaderValue};
use futures_util::future::ready;
use policies::{
    AcceptedIdentities, BoxFuture, Claims, Clock, Credentials, DeclaredFile, Outcome, Pass,
    Presented, Purpose, RoutePath, Step, Subject, SubjectId, Trace, UploadRequest, WorkspaceId,
};
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use utoipa::ToSchema;

use super::rules::{Route, Rules};
use crate::identities::{AppliedLimits, InMemoryRequest, RequestCredentials};

/// A request for an upload token, as an operator describes it. All fields are optional.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DescribedRequest {
    /// The path of the route. Default: the first route.
    #[serde(default)]
    pub route: Option<String>,
    /// The user. The gate does not verify it. Without `subject` and `token`, nobody is signed in.
    #[serde(default)]
    #[schemars(extend("examples" = [{ "id": "user_1" }]))]
    pub subject: Option<DescribedSubject>,
    /// A bearer token, which the gate verifies. Ignored if there is a `subject`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    #[schemars(with = "Option<String>")]
    pub token: Option<BearerToken>,
    /// The workspace that the request names.
    #[serde(default)]
    #[schema(value_type = Option<Id>)]
    pub workspace: Option<WorkspaceId>,
    /// The purpose that the request names.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub purpose: Option<Purpose>,
    /// The file that the request declares.
    #[serde(default)]
    pub file: Option<DescribedFile>,
    /// The client's IP address. Default: 127.0.0.1.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    #[schemars(extend("examples" = ["127.0.0.1"]))]
    pub ip: Option<IpAddr>,
}

/// A user.
#[derive(Clone, Debug, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DescribedSubject {
    /// The id of the user, as in the `sub` of a token.
    #[schema(value_type = Id)]
    #[schemars(extend("examples" = ["user_1"]))]
    pub id: SubjectId,
    /// The claims about the user, as a token has them.
    #[serde(default)]
    #[schema(value_type = Object)]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>", extend("examples" = [{ "plan": "pro" }]))]
    pub claims: Claims,
}

/// A bearer token that is valid in a header.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct BearerToken(HeaderValue);

impl TryFrom<String> for BearerToken {
    type Error = &'static str;

    // The error does not show the token.
    fn try_from(token: String) -> Result<Self, Self::Error> {
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        let mut value =
            value.map_err(|_| "`token` contains a character that is not allowed in a header")?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

/// The declared file of a described request.
#[derive(Clone, Debug, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(transform = with_alias, extend("examples" = [{ "mimeType": "image/png", "size": 48213 }]))]
pub struct DescribedFile {
    /// The file name.
    name: Option<String>,
    /// The media type, for example `image/png`.
    #[serde(alias = "mime_type")]
    mime_type: Option<String>,
    /// The size in bytes.
    #[schema(format = "uint64")]
    size: Option<u64>,
}

/// Adds the other spelling of a key.
fn with_alias(schema: &mut Schema) {
    if let Some(properties) = schema
        .get_mut("properties")
        .and_then(|all| all.as_object_mut())
        && let Some(name) = properties.get("mimeType").cloned()
    {
        properties.insert("mime_type".to_owned(), name);
    }
}

/// The id of a workspace or a user: 1 to 255 bytes without control characters.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = WorkspaceId)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum Id {
    Text(String),
    /// Stands for the string of its digits.
    Integer(i64),
}

/// The decision of a chain about a described request.
pub struct Explained {
    pub route: RoutePath,
    pub outcome: Outcome,
    /// The result of each policy, up to the one that ended the request.
    pub steps: Vec<Step>,
}

#[derive(Debug, thiserror::Error)]
#[error("unknown route `{0}`")]
pub struct UnknownRoute(String);

pub async fn explain(
    rules: &Rules,
    clock: &dyn Clock,
    described: DescribedRequest,
) -> Result<Explained, UnknownRoute> {
    let (route, request) = describe(rules, described)?;
    let mut trace = Trace::new(clock);
    let chain = &route.chain;
    let evaluation = chain.evaluate_and_trace(&request, Pass::Preview, &mut trace);
    Ok(Explained {
        route: route.path.clone(),
        outcome: evaluation.await.outcome,
        steps: trace.into_steps(),
    })
}

/// The route of a described request, and the request.
pub(crate) fn describe(
    rules: &Rules,
    described: DescribedRequest,
) -> Result<(&Route, UploadRequest), UnknownRoute> {
    let route = match &described.route {
        None => rules.routes.first(),
        Some(path) => rules.route(path),
    };
    let route = route.ok_or_else(|| UnknownRoute(described.route.clone().unwrap_or_default()))?;
    Ok((route, upload_request(route, described)))
}

fn upload_request(route: &Route, described: DescribedRequest) -> UploadRequest {
    let credentials: Box<dyn Credentials> = match (described.subject, described.token) {
        (None, Some(token)) => Box::new(RequestCredentials::new(
            InMemoryRequest::default().with_header(header::AUTHORIZATION, token.0),
            route.identities.clone(),
            AppliedLimits::None,
        )),
        (subject, _) => Box::new(DescribedCredentials(subject)),
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

/// The identity of the subject is the first one that the chain accepts.
struct DescribedCredentials(Option<DescribedSubject>);

impl Credentials for DescribedCredentials {
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
