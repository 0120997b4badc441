//! The evaluation of one policy of a chain, for explanations and traces.

use std::time::Duration;

use crate::{Decision, EvaluationError, Fault, PolicyName, Verdict};

/// The evaluation of one policy.
#[derive(Debug)]
pub struct Step {
    /// The name of the policy.
    pub policy: PolicyName,
    /// The kind of the policy.
    pub kind: &'static str,
    /// The result of the policy.
    pub result: StepResult,
    /// Why `when` is neither true nor false, if so. The policy was evaluated nevertheless.
    pub condition_error: Option<EvaluationError>,
    /// Whether the request continued despite a denial or a fault.
    pub tolerated: bool,
    /// When the evaluation began, by [`Clock::elapsed`](crate::Clock::elapsed).
    pub began: Duration,
    /// How long the evaluation took. Policies that are evaluated together all have the total time.
    pub took: Duration,
}

/// The result of a policy as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepResult {
    /// The policy allowed the request, perhaps with a note.
    Allow(Option<String>),
    /// The policy was skipped, because its `when` is false.
    Skip,
    /// The policy denied the request, for this reason.
    Deny(String),
    /// The policy could not decide, for this reason.
    Fault(String),
}

impl StepResult {
    pub(super) fn of(decided: &Result<Decision, Fault>) -> Self {
        match decided {
            Ok(Decision {
                verdict: Verdict::Allow | Verdict::Hold(_),
                note,
                ..
            }) => Self::Allow(note.clone()),
            Ok(Decision {
                verdict: Verdict::Deny(denial),
                ..
            }) => Self::Deny(denial.to_string()),
            Err(fault) => Self::Fault(fault.to_string()),
        }
    }
}
