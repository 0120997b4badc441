//! A line for each request that is refused before any policy is asked: such a request has no decision.

use actix_web::{HttpRequest, http::StatusCode};

use super::Worker;
use crate::{error::ApiError, request_id::RequestId, telemetry};

/// Whether `status` says that a request is malformed. A policy never answers with one of these.
pub(super) fn is_malformed(status: StatusCode) -> bool {
    let from_policies = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    status.is_client_error() && !from_policies.contains(&status)
}

/// Writes the line.
pub(crate) fn log(request: &HttpRequest, status: StatusCode, error: &ApiError) {
    let client = match request.app_data::<Worker>() {
        Some(worker) => Some(worker.gate.client_address.of(request)),
        None => request.peer_addr().map(|peer| peer.ip()),
    };
    let reason = match error {
        ApiError::Denied(denial) => Some(denial.to_string()),
        _ => None,
    };
    telemetry::refused(&telemetry::Refused {
        request_id: &RequestId::of(request),
        client,
        method: request.method(),
        path: request.path(),
        status,
        code: error.describe().1,
        reason: reason.as_deref(),
    });
}
