//! The use case: evaluate the chain, create a token, settle what was held.

use std::{rc::Rc, time::Duration};

use policies::{
    Chain, Clock, Denial, Evaluation, Facts, Fault, LimitState, Outcome, Overlooked, Pass, Permit,
    PolicyName, Trace, UploadRequest,
};

use crate::{
    imgwire::{Caller, Client, ImgwireError, UploadToken},
    telemetry::RequestTrace,
};

/// What a request came to, with everything that the log and the metrics tell of it.
pub struct Report {
    /// The end of it.
    pub ending: Ending,
    /// What the chain found out.
    pub facts: Facts,
    /// The limits that were asked.
    pub limits: Vec<LimitState>,
    /// Denials and faults that did not stop the request.
    pub overlooked: Vec<Overlooked>,
    /// How long the chain took.
    pub chain_took: Duration,
    /// How many attempts Imgwire took, and how long, if it was asked.
    pub upstream: Option<(u32, Duration)>,
}

/// The end of a request.
pub enum Ending {
    /// A token for the client.
    Issued(UploadToken),
    /// A policy refused.
    Denied(PolicyName, Denial),
    /// A policy could not tell.
    Faulted(PolicyName, Fault),
    /// Imgwire gave no token.
    ImgwireFailed(ImgwireError),
}

/// Issues a token to `request`, if every policy of `chain` agrees. Whatever happens, what the chain held is
/// settled when this returns; so it is to run to its end, whether or not the client waits. `spans` notes what happens,
/// where traces are wanted.
pub async fn issue(
    chain: &Chain,
    client: &Rc<Client>,
    clock: &dyn Clock,
    request: &UploadRequest,
    caller: &mut Caller,
    mut spans: Option<&mut RequestTrace>,
) -> Report {
    let started = clock.elapsed();
    let Evaluation {
        outcome,
        facts,
        limits,
        mut overlooked,
    } = match spans.as_mut() {
        None => chain.evaluate(request, Pass::Issue).await,
        Some(spans) => {
            let mut trace = Trace::new(clock);
            let evaluation = chain.evaluate_and_trace(request, Pass::Issue, &mut trace);
            let evaluation = evaluation.await;
            spans.note_policies(trace.into_steps());
            evaluation
        }
    };
    let chain_took = clock.elapsed().saturating_sub(started);
    let mut upstream = None;
    let ending = match outcome {
        Outcome::Allowed(permit) => {
            if let Some(spans) = spans.as_mut() {
                spans.begin_upstream(caller);
            }
            let creation = client.token(caller).await;
            if let Some(spans) = spans.as_mut() {
                spans.end_upstream(&creation);
            }
            upstream = Some((creation.attempts, creation.took));
            settle(permit, creation.result, &mut overlooked).await
        }
        Outcome::Denied { policy, denial } => Ending::Denied(policy, denial),
        Outcome::Faulted { policy, fault } => Ending::Faulted(policy, fault),
    };
    Report {
        ending,
        facts,
        limits,
        overlooked,
        chain_took,
        upstream,
    }
}

async fn settle(
    permit: Permit,
    created: Result<UploadToken, ImgwireError>,
    overlooked: &mut Vec<Overlooked>,
) -> Ending {
    match created {
        Ok(token) => match permit.issued().await {
            Ok(faults) => {
                overlooked.extend(faults);
                Ending::Issued(token)
            }
            Err((policy, fault)) => Ending::Faulted(policy, fault),
        },
        Err(error) => {
            overlooked.extend(permit.not_issued().await);
            Ending::ImgwireFailed(error)
        }
    }
}
