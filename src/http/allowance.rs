//! `GET <route>/allowance`: whether a POST would get a token now. Consumes nothing.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use jiff::{SignedDuration, Timestamp, Unit};
use policies::{
    DenialClass, Evaluation, LimitState, Outcome, Pass, PolicyName, StorageState, WorkspaceId,
    excerpt,
};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    context::{run_within_limit, worker},
    error::{ApiError, PublicErrors, fail, refuse},
    json_error,
    token_request::{TokenRequest, upload_request},
};
use crate::{gate::rules::Route, identities::AppliedLimits, telemetry::LogFields};

/// Whether a request for a token would be allowed now, and the state of its limits.
#[derive(Serialize, ToSchema)]
#[schema(as = Allowance)]
pub(crate) struct Answer<'a> {
    /// Whether the policies would allow a token.
    allowed: bool,
    /// The error code of the denial, if `allowed` is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// The limits that apply to the user, in the order of the policies: first those per time, then those of storage.
    limits: Vec<LimitOf<'a>>,
}

/// A limit per time, or of storage.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum LimitOf<'a> {
    /// A rate limit or a quota.
    Time(Limit<'a>),
    /// A policy of kind `storage`.
    Storage(Storage<'a>),
}

/// The state of the storage. A part that has no limit is left out.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = StorageLimit)]
pub(crate) struct Storage<'a> {
    /// The name of the policy.
    #[schema(value_type = String)]
    policy: &'a PolicyName,
    /// The bytes of all images. Those of an open upload are the declared ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<Held>,
    /// The number of images, with the open uploads.
    #[serde(skip_serializing_if = "Option::is_none")]
    images: Option<Held>,
}

/// How much is used.
#[derive(Serialize, ToSchema)]
#[schema(as = StorageUsed)]
pub(crate) struct Held {
    /// How much may be used.
    limit: u64,
    /// How much is used.
    used: u64,
}

/// The state of a rate limit or a quota.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Limit<'a> {
    /// The name of the policy.
    #[schema(value_type = String)]
    policy: &'a PolicyName,
    /// The maximum number of requests: of a rate limit those that may come at once, of a quota those per window.
    limit: u64,
    /// The number of requests that would pass now.
    remaining: u64,
    /// When all units are available again.
    #[schema(value_type = String, format = DateTime)]
    resets_at: Timestamp,
}

/// Returns whether a request for a token would be allowed now. Consumes nothing.
#[utoipa::path(
    get,
    path = "/api/imgwire/upload-token/allowance",
    tag = "public",
    operation_id = "show_allowance",
    params(
        ("X-Workspace-Id" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$", description = "The id of the workspace that the upload is for"),
        ("workspace" = Option<String>, Query, description = "The workspace that the request would name"),
        ("purpose" = Option<String>, Query, description = "The purpose that the request would name"),
        ("mimeType" = Option<String>, Query, description = "The media type of the file that the request would declare"),
        ("size" = Option<u64>, Query, description = "The size of the file that the request would declare, in bytes")
    ),
    security(("bearer" = []), ("session" = []), ()),
    responses(
        (status = 200, description = "The decision and the state of the limits", body = Answer),
        (status = 429, description = "A limit is reached", body = crate::http::error::Body, headers(("Retry-After" = u64))),
        PublicErrors
    )
)]
pub(crate) async fn get(
    request: HttpRequest,
    route: Arc<Route>,
    workspace: Option<WorkspaceId>,
) -> HttpResponse {
    run_within_limit(&request, show(&request, &route, workspace)).await
}

/// The POST that the query describes.
fn described(request: &HttpRequest) -> Result<TokenRequest, ApiError> {
    let bad = |message: String| ApiError::BadRequest(message.into());
    let query = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
    let web::Query(query) = query.map_err(|_| bad("the query is malformed".to_owned()))?;
    let (mut body, mut file) = (Map::new(), Map::new());
    for (name, value) in query {
        let earlier = match &*name {
            "workspace" | "purpose" => body.insert(name.clone(), value.into()),
            "mimeType" => file.insert(name.clone(), value.into()),
            "size" => {
                let size: Result<u64, _> = value.parse();
                let size = size.map_err(|_| bad("`size` must be a number of bytes".to_owned()))?;
                file.insert(name.clone(), size.into())
            }
            _ => {
                let (name, known) = (excerpt(&name), "workspace, purpose, mimeType and size");
                return Err(bad(format!(
                    "unknown parameter `{name}`; the parameters are {known}"
                )));
            }
        };
        if earlier.is_some() {
            return Err(bad(format!("the parameter `{name}` is there twice")));
        }
    }
    if !file.is_empty() {
        body.insert("file".to_owned(), file.into());
    }
    let body = Value::Object(body).to_string();
    let read = serde_json::from_str(&body);
    read.map_err(|error| bad(json_error::explain::<TokenRequest>(body.as_bytes(), &error)))
}

/// `workspace` is the one in the path.
async fn show(
    request: &HttpRequest,
    route: &Route,
    workspace: Option<WorkspaceId>,
) -> HttpResponse {
    let upload = match described(request)
        .map(|body| body.declared().in_workspace(workspace))
        .and_then(|body| upload_request(request, route, body, AppliedLimits::FailuresAndReads))
    {
        Ok(upload) => upload,
        Err(error) => return refuse(request, &error),
    };
    let evaluation = route.chain.evaluate(&upload, Pass::Preview).await;
    let subject = evaluation.facts.subject.clone();
    let membership = evaluation.facts.membership.as_ref();
    let workspace = membership.map(|membership| membership.workspace.clone());
    let (policy, reason) = match &evaluation.outcome {
        Outcome::Allowed(_) => (None, None),
        Outcome::Denied { policy, denial } => (Some(policy.clone()), Some(denial.to_string())),
        Outcome::Faulted { policy, fault } => (Some(policy.clone()), Some(fault.to_string())),
    };
    let mut response = answer(request, evaluation);
    if let Some(subject) = &subject {
        LogFields::set_subject(&mut response, subject);
    }
    LogFields::update(&mut response, |fields| {
        fields.workspace = workspace.or(upload.workspace);
        fields.policy = policy;
        fields.reason = reason;
    });
    response
}

fn answer(request: &HttpRequest, evaluation: Evaluation) -> HttpResponse {
    let denial = match evaluation.outcome {
        // A preview reserves nothing.
        Outcome::Allowed(_) => None,
        Outcome::Denied { denial, .. } => Some(denial),
        Outcome::Faulted { fault, .. } => return fail(request, &fault),
    };
    if let Some(denial) = &denial
        && (denial.is_of_server() || denial.class() == DenialClass::Unauthenticated)
    {
        return refuse(request, &ApiError::Denied(denial.clone()));
    }
    let now = worker(request).gate.clock.now();
    let limits = evaluation.limits.iter().map(|limit| describe(limit, now));
    let storage = evaluation.storage.iter().map(describe_storage);
    HttpResponse::Ok().json(Answer {
        allowed: denial.is_none(),
        code: denial.map(|denial| denial.code()),
        limits: limits
            .map(LimitOf::Time)
            .chain(storage.map(LimitOf::Storage))
            .collect(),
    })
}

fn describe_storage(state: &StorageState) -> Storage<'_> {
    let (limits, used) = (state.limits, state.used);
    let held = |limit: Option<u64>, used| limit.map(|limit| Held { limit, used });
    Storage {
        policy: &state.policy,
        bytes: held(limits.max_bytes, used.bytes),
        images: held(limits.max_images, used.images),
    }
}

fn describe(limit: &LimitState, now: Timestamp) -> Limit<'_> {
    let resets_in = SignedDuration::try_from(limit.resets_in).unwrap_or(SignedDuration::MAX);
    Limit {
        policy: &limit.policy,
        limit: limit.limit,
        remaining: limit.remaining,
        resets_at: resets_at(now, resets_in),
    }
}

/// In milliseconds, because the clock moved between the decision and the answer.
fn resets_at(now: Timestamp, resets_in: SignedDuration) -> Timestamp {
    let exact = now.saturating_add(resets_in).unwrap_or(Timestamp::MAX);
    exact.round(Unit::Millisecond).unwrap_or(exact)
}
