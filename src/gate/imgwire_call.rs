//! Calls to Imgwire in a span of their own, whose context Imgwire receives.

use policies::Fault;
use tracing::{Instrument as _, field::Empty};

use crate::{
    imgwire::{CallOutcome, TraceContext},
    telemetry,
};

/// Makes a call in a span with this name.
pub(super) async fn in_span<T>(
    name: &'static str,
    context: &TraceContext,
    call: impl AsyncFnOnce(&TraceContext) -> CallOutcome<T>,
) -> CallOutcome<T> {
    let span = tracing::debug_span!(
        "call Imgwire",
        otel.name = name,
        otel.kind = "client",
        otel.status_code = Empty,
        otel.status_description = Empty,
        error.type = Empty,
        imgwire_gate.attempts = Empty,
        imgwire_gate.pooled = Empty,
    );
    let Some((parent, state)) = telemetry::outgoing_headers(&span) else {
        return call(context).await;
    };
    let context = TraceContext {
        request_id: context.request_id.clone(),
        parent: Some(parent),
        state,
    };
    let outcome = call(&context).instrument(span.clone()).await;
    span.record("imgwire_gate.attempts", outcome.attempts);
    span.record(
        "imgwire_gate.pooled",
        outcome.result.is_ok() && outcome.attempts == 0,
    );
    if let Err(error) = &outcome.result {
        span.record("error.type", error.name());
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", error.to_string());
    }
    outcome
}

/// A change of records that failed after the outcome of a request was known.
pub(super) fn warn(context: &TraceContext, fault: &Fault) {
    tracing::warn!(
        request_id = context.request_id.as_str(),
        %fault,
        "upload record not changed"
    );
}
