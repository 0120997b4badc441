//! The outcome of a request for a token or an upload: for the log, the metrics and the trace.

use policies::{Denial, Reason, Tolerated, UploadRequest};
use tracing::Span;

use super::error::ApiError;
use crate::{
    gate::outcome::{Failure, Report, Success},
    telemetry::{DECISION, Metrics, RequestId, seconds_to_wait, trace_id},
};

/// How an outcome is reported. The status and the code of an error stand in [`ApiError::describe`]. A status of 500 and
/// above is an ERROR in the log, and an error in the trace.
struct Summary<'a> {
    /// The outcome in the log, the metrics and the trace.
    label: &'static str,
    /// The code in the metrics if there is no error.
    success: &'static str,
    response: Result<&'a Success, ApiError>,
}

impl<'a> Summary<'a> {
    fn of(outcome: &'a Result<Success, Failure>) -> Self {
        let (label, success) = match outcome {
            Ok(Success::Issued(_)) => ("issued", "issued"),
            Ok(Success::Created(_)) => ("created", "created"),
            Ok(Success::Repeated(_)) => ("repeated", "created"),
            Err(Failure::Denied(..) | Failure::KeyReused | Failure::NoImage(_)) => ("denied", ""),
            Err(Failure::Faulted(..) | Failure::Unrecorded(_)) => ("faulted", ""),
            Err(Failure::ImgwireFailed(_)) => ("failed", ""),
        };
        Self {
            label,
            success,
            response: outcome.as_ref().map_err(ApiError::from),
        }
    }
}

/// Writes the log line of a request, counts the request, and completes its span.
pub(super) fn record(metrics: &Metrics, id: &RequestId, request: &UploadRequest, report: &Report) {
    let Summary {
        label: outcome,
        success,
        response,
    } = Summary::of(&report.outcome);
    let details = &report.details;
    let failure = report.outcome.as_ref().err();
    let (policy, reason) = (
        failure.and_then(Failure::policy),
        failure.and_then(Failure::reason),
    );
    let (status, code) = ApiError::describe_result(&response);
    let subject = details.facts.subject.as_deref();
    let identity = subject
        .map(|subject| &subject.identity)
        .or_else(|| match failure {
            Some(Failure::Denied(_, denial)) => denial.identity(),
            _ => None,
        });
    let found = details.facts.membership.as_ref();
    // If Imgwire was asked, log only a workspace that a policy verified.
    let workspace = match (failure, found) {
        (_, Some(membership)) => Some(&membership.workspace),
        (Some(Failure::Denied(..) | Failure::Faulted(..)), None) => request.workspace.as_ref(),
        _ => None,
    };
    let upstream = details.upstream;
    let (token, image) = match &report.outcome {
        Ok(Success::Issued(token)) => (token.id.as_deref(), None),
        Ok(Success::Created(upload) | Success::Repeated(upload)) => {
            (None, Some(upload.image.id.as_str()))
        }
        Err(_) => (None, None),
    };
    let body = match failure {
        Some(Failure::ImgwireFailed(error)) => error.body(),
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
                chain_us = details.chain_took.as_micros() as u64,
                upstream_attempts = upstream.map(|(attempts, _)| attempts),
                upstream_ms = upstream.map(|(_, took)| took.as_micros() as f64 / 1000.0),
                upload_token_id = token,
                image_id = image,
                error_type = body.and_then(|body| body.error_type.as_deref()),
                detail = body.and_then(|body| body.detail.as_deref()),
                $($name = $value,)*
            )
        };
    }
    // A fault needs the operator's attention; a denial does not.
    match failure {
        _ if status >= 500 => line!(error),
        Some(Failure::Denied(_, denial)) => {
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
    let code = code.unwrap_or(success);
    metrics.decisions(route, outcome, policy, code).inc();
    let chain_took = details.chain_took.as_secs_f64();
    metrics.chain_seconds().observe(chain_took);
    if let Some((attempts, _)) = upstream {
        let result = match failure {
            Some(Failure::ImgwireFailed(error)) => error.name(),
            _ if attempts == 0 => "pooled",
            _ => "created",
        };
        metrics.creations(result).inc();
        metrics.upstream_attempts().inc_by(attempts.into());
    }
    for tolerated in &details.tolerated {
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
