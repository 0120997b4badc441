//! `GET <route>/allowance`: what a POST would meet now, consuming nothing.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse};
use jiff::{SignedDuration, Timestamp};
use policies::{DenialClass, Evaluation, LimitState, Outcome, Pass, PolicyName};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    body::Body,
    context::worker,
    error::{ApiError, fail, refuse},
    facts::upload_request,
    refusals::Refusals,
    running::in_place,
};
use crate::{gate::rules::Route, identities::AppliedLimits, telemetry::Account};

/// What a POST would meet now.
#[derive(Serialize, ToSchema)]
#[schema(as = Allowance)]
pub(crate) struct Answer<'a> {
    /// Whether it would get a token, if Imgwire gave one.
    allowed: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    limits: Vec<Limit<'a>>,
}

/// How a limit stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Limit<'a> {
    /// Its policy.
    #[schema(value_type = String)]
    policy: &'a PolicyName,
    /// How many there are.
    limit: u64,
    /// How many are left.
    remaining: u64,
    /// When all are there again.
    #[schema(value_type = String, format = DateTime)]
    resets_at: Timestamp,
}

/// Says what a POST would meet now, and consumes nothing.
#[utoipa::path(
    get,
    path = "/api/imgwire/upload-token/allowance",
    tag = "public",
    operation_id = "show_allowance",
    params(("X-Workspace-Id" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$", description = "The workspace")),
    security(("bearer" = []), ("session" = []), ()),
    responses(
        (status = 200, description = "What it would meet", body = Answer),
        (status = 429, description = "A limit is reached", body = crate::http::error::Body, headers(("Retry-After" = u64))),
        Refusals
    )
)]
pub(crate) async fn get(request: HttpRequest, route: Arc<Route>) -> HttpResponse {
    in_place(&request, show(&request, &route)).await
}

async fn show(request: &HttpRequest, route: &Route) -> HttpResponse {
    let upload = match upload_request(
        request,
        route,
        Body::default(),
        AppliedLimits::FailuresAndReads,
    ) {
        Ok(upload) => upload,
        Err(error) => return refuse(request, &error),
    };
    let evaluation = route.chain.evaluate(&upload, Pass::Preview).await;
    let subject = evaluation.facts.subject.clone();
    let mut response = answer(request, evaluation);
    if let Some(subject) = &subject {
        Account::of_subject(&mut response, subject);
    }
    response
}

fn answer(request: &HttpRequest, evaluation: Evaluation) -> HttpResponse {
    let denial = match evaluation.outcome {
        // A preview reserves nothing.
        Outcome::Allowed(_) => None,
        Outcome::Denied { denial, .. } => Some(denial),
        Outcome::Faulted { policy, fault } => {
            return fail(request, &format_args!("policy `{policy}`: {fault}"));
        }
    };
    if let Some(denial) = &denial
        && (denial.is_of_server() || denial.class() == DenialClass::Unauthenticated)
    {
        return refuse(request, &ApiError::Denied(denial.clone()));
    }
    let now = worker(request).gate.clock.now();
    HttpResponse::Ok().json(Answer {
        allowed: denial.is_none(),
        code: denial.map(|denial| denial.code()),
        limits: evaluation
            .limits
            .iter()
            .map(|limit| describe(limit, now))
            .collect(),
    })
}

fn describe(limit: &LimitState, now: Timestamp) -> Limit<'_> {
    let resets_in = SignedDuration::try_from(limit.resets_in).unwrap_or(SignedDuration::MAX);
    Limit {
        policy: &limit.policy,
        limit: limit.limit,
        remaining: limit.remaining,
        resets_at: now.saturating_add(resets_in).unwrap_or(Timestamp::MAX),
    }
}
