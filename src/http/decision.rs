//! The outcome of a request for a token: for the client, the log, the metrics and the trace.

use std::fmt;

use policies::{Denial, PolicyName, Reason, Tolerated, UploadRequest};
use tracing::Span;

use super::error::ApiError;
use crate::{
    gate::issue::{IssueOutcome, Report},
    imgwire::UploadToken,
    telemetry::{DECISION, Metrics, RequestId, seconds_to_wait, trace_id},
};

/// How an outcome is reported. The status and the code of an error stand in [`ApiError::describe`]. A status of 500 and
/// above is an ERROR in the log, and an error in the trace.
pub(super) struct Summary<'a> {
    /// The outcome in the log, the metrics and the trace.
    label: &'static str,
    pub(super) response: Result<&'a UploadToken, ApiError>,
    policy: Option<&'a PolicyName>,
    reason: Option<&'a dyn fmt::Display>,
}

impl<'a> Summary<'a> {
    pub(super) fn of(outcome: &'a IssueOutcome) -> Self {
        let (label, response, policy, reason): (_, _, _, Option<&dyn fmt::Display>) = match outcome
        {
            IssueOutcome::Issued(token) => ("issued", Ok(token), None, None),
            IssueOutcome::Denied(policy, denial) => {
                let error = ApiError::Denied(denial.clone());
                ("denied", Err(error), Some(policy), Some(denial as _))
            }
            IssueOutcome::Faulted(policy, fault) => (
                "faulted",
                Err(ApiError::Internal),
                Some(policy),
                Some(fault as _),
            ),
            IssueOutcome::ImgwireFailed(error) => (
                "failed",
                Err(ApiError::ImgwireFailed),
                None,
                Some(error as _),
            ),
        };
        Self {
            label,
            response,
            policy,
            reason,
        }
    }
}

/// Writes the log line of a request, counts the request, and completes its span.
pub(super) fn record(metrics: &Metrics, id: &RequestId, request: &UploadRequest, report: &Report) {
    let Summary {
        label: outcome,
        response,
        policy,
        reason,
    } = Summary::of(&report.outcome);
    let (status, code) = ApiError::describe_result(&response);
    let subject = report.facts.subject.as_deref();
    let identity = subject
        .map(|subject| &subject.identity)
        .or_else(|| match &report.outcome {
            IssueOutcome::Denied(_, denial) => denial.identity(),
            _ => None,
        });
    let found = report.facts.membership.as_ref();
    // If a token was issued, log only a workspace that a policy verified.
    let workspace = match (&report.outcome, found) {
        (_, Some(membership)) => Some(&membership.workspace),
        (IssueOutcome::Denied(..) | IssueOutcome::Faulted(..), None) => request.workspace.as_ref(),
        (IssueOutcome::Issued(_) | IssueOutcome::ImgwireFailed(_), None) => None,
    };
    let upstream = report.upstream;
    let token = response.as_ref().ok();
    let body = match &report.outcome {
        IssueOutcome::ImgwireFailed(error) => error.body(),
        _ => None,
    };
    let trace_id = trace_id().map(|id| id.to_string());
    macro_rules! line {
        ($level:ident $(, $name:ident = $value:expr)*) => {
            tracing::$level!(
                target: DECISION,
                request_id = id.as_str(),
                client = %request.ip,
                trace_id,
                outcome,
                status,
                code,
                route = request.route.as_str(),
                identity = identity.map(|identity| identity.as_str()),
                subject = subject.map(|subject| subject.id.as_str()),
                workspace = workspace.map(|workspace| workspace.as_str()),
                policy = policy.map(|policy| policy.as_str()),
                reason = reason.map(tracing::field::display),
                chain_us = report.chain_took.as_micros() as u64,
                upstream_attempts = upstream.map(|(attempts, _)| attempts),
                upstream_ms = upstream.map(|(_, took)| took.as_micros() as f64 / 1000.0),
                upload_token_id = token.and_then(|token| token.id.as_deref()),
                error_type = body.and_then(|body| body.error_type.as_deref()),
                detail = body.and_then(|body| body.detail.as_deref()),
                $($name = $value,)*
            )
        };
    }
    // A fault needs the operator's attention; a denial does not.
    match &report.outcome {
        _ if status >= 500 => line!(error),
        IssueOutcome::Denied(_, denial) => {
            let (origin, reached) = (denial.token(), denial.reached());
            line!(
                info,
                issuer = origin.and_then(|origin| origin.issuer.as_deref()),
                kid = origin.and_then(|origin| origin.kid.as_deref()),
                limit = reached.map(|reached| reached.limit),
                burst = reached.and_then(|reached| reached.burst),
                window = reached.map(|reached| reached.window.as_str()),
                limit_key = reached.map(|reached| reached.key.as_str()),
                retry_after = denial.retry_after().map(seconds_to_wait)
            );
        }
        _ => line!(info),
    }
    let span = Span::current();
    span.record("imgwire_gate.outcome", outcome);
    span.record("imgwire_gate.code", code);
    let (route, policy) = (request.route.clone(), policy.cloned());
    let code = code.unwrap_or("issued");
    metrics.decisions(route, outcome, policy, code).inc();
    let chain_took = report.chain_took.as_secs_f64();
    metrics.chain_seconds().observe(chain_took);
    if let Some((attempts, _)) = upstream {
        let result = match &report.outcome {
            IssueOutcome::ImgwireFailed(error) => error.name(),
            _ if attempts == 0 => "pooled",
            _ => "created",
        };
        metrics.creations(result).inc();
        metrics.upstream_attempts().inc_by(attempts.into());
    }
    for tolerated in &report.tolerated {
        record_tolerated(metrics, id, request, tolerated);
    }
}

fn record_tolerated(
    metrics: &Metrics,
    id: &RequestId,
    request: &UploadRequest,
    tolerated: &Tolerated,
) {
    let Tolerated { policy, reason } = tolerated;
    let denial = match reason {
        Reason::Denial(denial) => Some(denial),
        Reason::Fault(_) => None,
    };
    let reached = denial.and_then(Denial::reached);
    macro_rules! line {
        ($level:ident, $outcome:literal, $code:expr, $reason:ident) => {{
            let code = $code;
            tracing::$level!(
                target: DECISION,
                request_id = id.as_str(),
                client = %request.ip,
                outcome = $outcome,
                code,
                route = request.route.as_str(),
                policy = policy.as_str(),
                reason = $reason.to_string(),
                limit = reached.map(|reached| reached.limit),
                window = reached.map(|reached| reached.window.as_str()),
                limit_key = reached.map(|reached| reached.key.as_str()),
            );
            ($outcome, code)
        }};
    }
    let (outcome, code) = match reason {
        Reason::Denial(denial) => line!(info, "would_deny", denial.code(), denial),
        Reason::Fault(fault) => line!(warn, "fault_tolerated", "internal", fault),
    };
    let (route, policy) = (request.route.clone(), Some(policy.clone()));
    metrics.decisions(route, outcome, policy, code).inc();
}
