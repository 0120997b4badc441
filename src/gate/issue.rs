//! The use case: evaluate the chain, create a token, settle what was reserved.

use std::{rc::Rc, time::Duration};

use policies::{
    Chain, Clock, Denial, Evaluation, Facts, Fault, LimitState, Outcome, Pass, Permit, PolicyName,
    Tolerated, UploadRequest,
};
use tracing::{Instrument as _, field::Empty};

use crate::{
    imgwire::{Client, ImgwireError, TokenOutcome, TraceContext, UploadToken},
    telemetry,
};

/// The result of a request, with everything that the log and the metrics report.
pub struct Report {
    pub ending: Ending,
    pub facts: Facts,
    pub limits: Vec<LimitState>,
    /// Denials and faults that did not stop the request.
    pub tolerated: Vec<Tolerated>,
    pub chain_took: Duration,
    /// How many attempts Imgwire took, and how long; `None` if it was not called.
    pub upstream: Option<(u32, Duration)>,
}

pub enum Ending {
    Issued(UploadToken),
    Denied(PolicyName, Denial),
    /// A policy could not decide.
    Faulted(PolicyName, Fault),
    ImgwireFailed(ImgwireError),
}

/// Issues a token if every policy of `chain` allows it. Everything that the chain reserved is settled when this
/// returns, so it must run to completion even if the client disconnects.
pub async fn issue(
    chain: &Chain,
    client: &Rc<Client>,
    clock: &dyn Clock,
    request: &UploadRequest,
    context: &TraceContext,
) -> Report {
    let started = clock.elapsed();
    let Evaluation {
        outcome,
        facts,
        limits,
        mut tolerated,
    } = chain.evaluate(request, Pass::Issue).await;
    let chain_took = clock.elapsed().saturating_sub(started);
    let mut upstream = None;
    let ending = match outcome {
        Outcome::Allowed(permit) => {
            let creation = create(client, context).await;
            upstream = Some((creation.attempts, creation.took));
            settle(permit, creation.result, &mut tolerated).await
        }
        Outcome::Denied { policy, denial } => Ending::Denied(policy, denial),
        Outcome::Faulted { policy, fault } => Ending::Faulted(policy, fault),
    };
    Report {
        ending,
        facts,
        limits,
        tolerated,
        chain_took,
        upstream,
    }
}

/// Creates a token in a span of its own, which Imgwire is told of.
async fn create(client: &Rc<Client>, context: &TraceContext) -> TokenOutcome {
    let span = tracing::debug_span!(
        "create upload token",
        otel.kind = "client",
        otel.status_code = Empty,
        otel.status_description = Empty,
        error.type = Empty,
        imgwire_gate.attempts = Empty,
        imgwire_gate.pooled = Empty,
    );
    let Some((parent, state)) = telemetry::outgoing_headers(&span) else {
        return client.token(context).await;
    };
    let context = TraceContext {
        request_id: context.request_id.clone(),
        parent: Some(parent),
        state,
    };
    let creation = client.token(&context).instrument(span.clone()).await;
    span.record("imgwire_gate.attempts", creation.attempts);
    span.record("imgwire_gate.pooled", creation.attempts == 0);
    if let Err(error) = &creation.result {
        span.record("error.type", error.name());
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", error.to_string());
    }
    creation
}

async fn settle(
    permit: Permit,
    created: Result<UploadToken, ImgwireError>,
    tolerated: &mut Vec<Tolerated>,
) -> Ending {
    match created {
        Ok(token) => match permit.issued().await {
            Ok(faults) => {
                tolerated.extend(faults);
                Ending::Issued(token)
            }
            Err((policy, fault)) => Ending::Faulted(policy, fault),
        },
        Err(error) => {
            tolerated.extend(permit.not_issued().await);
            Ending::ImgwireFailed(error)
        }
    }
}
