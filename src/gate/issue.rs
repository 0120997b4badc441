//! Issues a token: evaluates the chain, creates the token, and settles the reservations.

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

/// The result of a request, with everything that the log and the metrics need.
pub struct Report {
    pub outcome: IssueOutcome,
    pub facts: Facts,
    pub limits: Vec<LimitState>,
    /// Denials and faults that did not stop the request.
    pub tolerated: Vec<Tolerated>,
    pub chain_took: Duration,
    /// The number and the duration of the attempts to create a token; `None` if the chain did not allow the request.
    pub upstream: Option<(u32, Duration)>,
}

pub enum IssueOutcome {
    Issued(UploadToken),
    Denied(PolicyName, Denial),
    /// A policy could not decide.
    Faulted(PolicyName, Fault),
    ImgwireFailed(ImgwireError),
}

/// Issues a token if every policy of `chain` allows the request. All reservations are settled when this returns, so it
/// must run to completion even if the client disconnects.
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
    let outcome = match outcome {
        Outcome::Allowed(permit) => {
            let creation = create(client, context).await;
            upstream = Some((creation.attempts, creation.took));
            settle(permit, creation.result, &mut tolerated).await
        }
        Outcome::Denied { policy, denial } => IssueOutcome::Denied(policy, denial),
        Outcome::Faulted { policy, fault } => IssueOutcome::Faulted(policy, fault),
    };
    Report {
        outcome,
        facts,
        limits,
        tolerated,
        chain_took,
        upstream,
    }
}

/// Creates a token in a span whose context is sent to Imgwire.
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
) -> IssueOutcome {
    match created {
        Ok(token) => match permit.issued().await {
            Ok(faults) => {
                tolerated.extend(faults);
                IssueOutcome::Issued(token)
            }
            Err((policy, fault)) => IssueOutcome::Faulted(policy, fault),
        },
        Err(error) => {
            tolerated.extend(permit.not_issued().await);
            IssueOutcome::ImgwireFailed(error)
        }
    }
}
