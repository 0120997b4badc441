//! The use case: evaluate the chain, create a token, settle what was reserved.

use std::{rc::Rc, time::Duration};

use policies::{
    Chain, Clock, Denial, Evaluation, Facts, Fault, LimitState, Outcome, Pass, Permit, PolicyName,
    Tolerated, Trace, UploadRequest,
};

use crate::{
    http::error::ApiError,
    imgwire::{Caller, Client, ImgwireError, UploadToken},
    telemetry::RequestTrace,
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

impl Ending {
    /// As the log, the metrics and the traces name it.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Issued(_) => "issued",
            Self::Denied(..) => "denied",
            Self::Faulted(..) => "faulted",
            Self::ImgwireFailed(_) => "failed",
        }
    }

    /// What the client gets.
    pub fn result(&self) -> Result<&UploadToken, ApiError> {
        match self {
            Self::Issued(token) => Ok(token),
            Self::Denied(_, denial) => Err(ApiError::Denied(denial.clone())),
            Self::Faulted(..) => Err(ApiError::Internal),
            Self::ImgwireFailed(_) => Err(ApiError::ImgwireFailed),
        }
    }
}

/// Issues a token if every policy of `chain` allows it. Everything that the chain reserved is settled when this
/// returns, so it must run to completion even if the client disconnects. `spans` records traces, if they are enabled.
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
        mut tolerated,
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
