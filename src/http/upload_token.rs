//! `POST <route>`: issues a token if all policies allow it.

use std::{fmt::Write as _, mem, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, AcceptLanguage, Header as _, HeaderMap, HeaderName, HeaderValue},
    web,
};
use jiff::Timestamp;
use policies::LimitState;
use serde::Serialize;
use tracing::Instrument as _;
use utoipa::ToSchema;

use super::{
    context::{LogOnDisconnect, enter, worker},
    decision::{self, Summary},
    error::{ApiError, Body as Error, PublicErrors, fail, refuse},
    token_request::{TokenRequest, read_body, trace_context, upload_request},
};
use crate::{
    config::Messages,
    gate::{
        issue::{IssueOutcome, Report, issue, run_to_completion},
        rules::Route,
    },
    identities::AppliedLimits,
    outbound::in_flight::with_place,
    telemetry::{HasDecision, RequestId, RootSpan, whole_seconds},
};

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// An upload token of Imgwire.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UploadToken)]
pub(crate) struct Answer<'a> {
    /// The token. It is valid for one upload.
    upload_token: &'a str,
    /// When the token expires, if Imgwire returned it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

/// Creates an upload token if all policies of the route allow it.
#[utoipa::path(
    post,
    path = "/api/imgwire/upload-token",
    tag = "public",
    operation_id = "create_token",
    request_body(
        content = TokenRequest,
        description = "What the upload is for. The body may be empty",
        content_type = "application/json"
    ),
    params(("X-Workspace-Id" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$", description = "The id of the workspace that the upload is for, if the body has none")),
    security(("bearer" = []), ("session" = []), ()),
    responses(
        (status = 200, description = "The token", body = Answer,
            headers(("RateLimit" = String), ("RateLimit-Policy" = String), ("X-Request-Id" = String))),
        (status = 413, description = "The body is too large", body = Error),
        (status = 415, description = "The body is not JSON", body = Error),
        (status = 429, description = "A limit is reached", body = Error, headers(("Retry-After" = u64))),
        PublicErrors
    )
)]
pub(crate) async fn post(
    request: HttpRequest,
    payload: web::Payload,
    route: Arc<Route>,
) -> HttpResponse {
    let worker = worker(&request).clone();
    let gate = &worker.gate;
    let log_on_disconnect = LogOnDisconnect(&request);
    let body = read_body(&request, payload, gate.body_limits).await;
    mem::forget(log_on_disconnect);
    let body = match body {
        Ok(body) => body,
        Err(error) => return refuse(&request, &error),
    };
    // Counts the request as running only now, so that clients that send slowly do not use up `max_in_flight`.
    let Some(running) = enter(gate) else {
        return refuse(&request, &ApiError::Overloaded);
    };
    let upload = match upload_request(&request, &route, body, AppliedLimits::Failures) {
        Ok(upload) => upload,
        Err(error) => return refuse(&request, &error),
    };
    RootSpan::record_route("POST", route.path.as_str());
    let target = route.clone();
    let context = trace_context(&request);
    let in_flight = running.in_flight();
    // If the client disconnects, the handler is dropped, but reservations must still be settled.
    let work = async move {
        let gate = &worker.gate;
        let report = issue(
            &target.chain,
            &worker.client,
            &*gate.clock,
            &upload,
            &context,
        )
        .await;
        decision::record(&gate.metrics, &context.request_id, &upload, &report);
        drop(running);
        report
    };
    let work = with_place(in_flight, work);
    match run_to_completion(work.in_current_span()).await {
        Ok(report) => answer(&request, &route, &report),
        Err(_) => fail(&request, &"the handler panicked"),
    }
}

/// The error response, with the message for the user that the denying policy has. Limits of the server have no policy.
fn refusal(
    request: &HttpRequest,
    route: &Route,
    outcome: &IssueOutcome,
    error: &ApiError,
) -> HttpResponse {
    let messages = match outcome {
        IssueOutcome::Denied(policy, denial) if !denial.is_of_server() => {
            route.messages.iter().find(|(name, _)| name == policy)
        }
        _ => None,
    };
    let Some((_, messages)) = messages else {
        return refuse(request, error);
    };
    let wanted = AcceptLanguage::parse(request).map(|wanted| wanted.ranked());
    let wanted = wanted.unwrap_or_default();
    let wanted = wanted.iter().filter_map(|language| language.item());
    let message = choose(messages, wanted.map(|language| language.as_str()));
    let mut response = error.response_with(&RequestId::of(request), Some(message));
    let vary = HeaderValue::from_static("accept-language");
    response.headers_mut().append(header::VARY, vary);
    response
}

/// The text in the first available of the `wanted` languages, each also tried without its region (RFC 4647, 3.4).
/// Otherwise the English text, or else any.
fn choose<'a>(messages: &Messages, wanted: impl IntoIterator<Item = &'a str>) -> &str {
    let find = |tag: &str| {
        let mut texts = messages.texts();
        let text = texts.find(|(language, _)| language.eq_ignore_ascii_case(tag));
        text.map(|(_, text)| text)
    };
    wanted
        .into_iter()
        .find_map(|tag| find(tag).or_else(|| find(tag.split('-').next()?)))
        .or_else(|| find("en"))
        .or_else(|| messages.texts().next().map(|(_, text)| text))
        .unwrap_or_default()
}

fn answer(request: &HttpRequest, route: &Route, report: &Report) -> HttpResponse {
    let mut response = match Summary::of(&report.outcome).response {
        Ok(token) => HttpResponse::Ok().json(Answer {
            upload_token: &token.token,
            expires_at: token.expires_at,
        }),
        Err(error) => refusal(request, route, &report.outcome, &error),
    };
    response.extensions_mut().insert(HasDecision);
    if matches!(response.status().as_u16(), 200 | 429) {
        insert_ratelimit(response.headers_mut(), &report.limits);
    }
    response
}

/// Adds `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers.
fn insert_ratelimit(headers: &mut HeaderMap, limits: &[LimitState]) {
    if limits.is_empty() {
        return;
    }
    let (mut policies, mut states) = (String::new(), String::new());
    for (index, limit) in limits.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        let (name, quota, remaining) = (limit.policy.as_str(), limit.limit, limit.remaining);
        let window = limit.window.as_secs().max(1);
        let resets_in = whole_seconds(limit.resets_in);
        // Writing to a `String` cannot fail.
        let _ = write!(policies, "{separator}\"{name}\";q={quota};w={window}");
        let _ = write!(states, "{separator}\"{name}\";r={remaining};t={resets_in}");
    }
    for (name, value) in [(RATELIMIT_POLICY, policies), (RATELIMIT, states)] {
        // Policy names are letters, digits and `-_.`; the settings check that.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}
