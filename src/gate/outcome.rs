//! How a request ended, with everything that the log and the metrics need.

use std::{fmt, time::Duration};

use policies::{
    Chain, Clock, Denial, Evaluation, Facts, Fault, LimitState, Outcome, Pass, Permit, PolicyName,
    Reason, Tolerated, UploadRequest,
};

use crate::imgwire::{CallOutcome, CreatedUpload, ImgwireError, UploadToken};

/// The result of a request for a token or an upload.
pub struct Report {
    pub outcome: Result<Success, Failure>,
    pub details: Details,
}

/// What happened on the way to the outcome.
#[derive(Default)]
pub struct Details {
    pub facts: Facts,
    pub limits: Vec<LimitState>,
    /// Denials and faults that did not stop the request.
    pub tolerated: Vec<Tolerated>,
    pub chain_took: Duration,
    /// The number and the duration of the attempts at Imgwire; `None` if Imgwire was not asked.
    pub upstream: Option<(u32, Duration)>,
}

impl Details {
    /// Keeps what a call to Imgwire took.
    pub(super) fn add_call<T>(&mut self, call: &CallOutcome<T>) {
        self.upstream = Some((call.attempts, call.took));
    }

    /// Adds a denial that did not stop the request, unless the chain has already reported that of this policy.
    pub(super) fn tolerate(&mut self, policy: PolicyName, denial: Denial) {
        if self.tolerated.iter().all(|other| other.policy != policy) {
            let reason = Reason::Denial(denial);
            self.tolerated.push(Tolerated { policy, reason });
        }
    }

    /// Evaluates a chain. Its facts and limits replace those of an earlier one.
    pub(super) async fn evaluate(
        &mut self,
        chain: &Chain,
        request: &UploadRequest,
        pass: Pass,
        clock: &dyn Clock,
    ) -> Result<Permit, Failure> {
        let started = clock.elapsed();
        let Evaluation {
            outcome,
            facts,
            limits,
            storage: _,
            tolerated,
        } = chain.evaluate(request, pass).await;
        self.chain_took += clock.elapsed().saturating_sub(started);
        self.facts = facts;
        self.limits = limits;
        self.tolerated.extend(tolerated);
        match outcome {
            Outcome::Allowed(permit) => Ok(permit),
            Outcome::Denied { policy, denial } => Err(Failure::Denied(Some(policy), denial)),
            Outcome::Faulted { policy, fault } => Err(Failure::Faulted(policy, fault)),
        }
    }
}

pub enum Success {
    Issued(UploadToken),
    Created(CreatedUpload),
    /// The upload of an earlier request with the same idempotency key.
    Repeated(CreatedUpload),
}

pub enum Failure {
    /// Without a policy if the chain did not establish what the route needs.
    Denied(Option<PolicyName>, Denial),
    /// A policy could not decide.
    Faulted(PolicyName, Fault),
    /// The store of the records failed.
    Unrecorded(Fault),
    ImgwireFailed(ImgwireError),
    /// An earlier upload with the same idempotency key has other parameters.
    KeyReused,
    /// There is no such image, or the client may not see it, perhaps because a policy denies.
    NoImage(Option<(Option<PolicyName>, Denial)>),
}

static KEY_REUSED: &str = "the idempotency key was used for another upload";

impl Failure {
    /// The policy that denied or could not decide.
    #[must_use]
    pub fn policy(&self) -> Option<&PolicyName> {
        match self {
            Self::Denied(policy, _) | Self::NoImage(Some((policy, _))) => policy.as_ref(),
            Self::Faulted(policy, _) => Some(policy),
            Self::Unrecorded(_)
            | Self::ImgwireFailed(_)
            | Self::KeyReused
            | Self::NoImage(None) => None,
        }
    }

    /// The reason for the log, unless the code says everything.
    #[must_use]
    pub fn reason(&self) -> Option<&dyn fmt::Display> {
        match self {
            Self::Denied(_, denial) | Self::NoImage(Some((_, denial))) => Some(denial),
            Self::Faulted(_, fault) | Self::Unrecorded(fault) => Some(fault),
            Self::ImgwireFailed(error) => Some(error),
            Self::KeyReused => Some(&KEY_REUSED),
            Self::NoImage(None) => None,
        }
    }
}
