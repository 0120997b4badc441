//! Issues a token: evaluates the chain, creates the token, and settles the reservations.

use std::{rc::Rc, time::Duration};

use policies::{
    Chain, Clock, Denial, Evaluation, Facts, Fault, LimitState, Outcome, Overlooked, Pass, Permit,
    PolicyName, UploadRequest,
};
use tracing::{Instrument as _, field::Empty};

use crate::{
    imgwire::{Caller, Client, Creation, ImgwireError, UploadToken},
    telemetry,
};

/// The result of a request, with everything that the log and the metrics need.
pub struct Report {
    pub outcome: IssueOutcome,
    pub facts: Facts,
    pub limits: Vec<LimitState>,
    /// Denials and faults that were ignored.
    pub overlooked: Vec<Overlooked>,
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
    caller: &Caller,
) -> Report {
    let started = clock.elapsed();
    let Evaluation {
        outcome,
        facts,
        limits,
        mut overlooked,
    } = chain.evaluate(request, Pass::Issue).await;
    let chain_took = clock.elapsed().saturating_sub(started);
    let mut upstream = None;
    let outcome = match outcome {
        Outcome::Allowed(permit) => {
            let creation = create(client, caller).await;
            upstream = Some((creation.attempts, creation.took));
            settle(permit, creation.result, &mut overlooked).await
        }
        Outcome::Denied { policy, denial } => IssueOutcome::Denied(policy, denial),
        Outcome::Faulted { policy, fault } => IssueOutcome::Faulted(policy, fault),
    };
    Report {
        outcome,
        facts,
        limits,
        overlooked,
        chain_took,
        upstream,
    }
}

/// Creates a token in a span whose context is sent to Imgwire.
async fn create(client: &Rc<Client>, caller: &Caller) -> Creation {
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
        return client.token(caller).await;
    };
    let caller = Caller {
        request_id: caller.request_id.clone(),
        parent: Some(parent),
        state,
    };
    let creation = client.token(&caller).instrument(span.clone()).await;
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
    overlooked: &mut Vec<Overlooked>,
) -> IssueOutcome {
    match created {
        Ok(token) => match permit.issued().await {
            Ok(faults) => {
                overlooked.extend(faults);
                IssueOutcome::Issued(token)
            }
            Err((policy, fault)) => IssueOutcome::Faulted(policy, fault),
        },
        Err(error) => {
            overlooked.extend(permit.not_issued().await);
            IssueOutcome::ImgwireFailed(error)
        }
    }
}
