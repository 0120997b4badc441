//! What policies decide about a described request, as `POST /explain` returns it and `imgwire-gate explain` prints it.

use policies::{Outcome, PolicyName, RoutePath, Step, StepResult};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use crate::gate::explain::Explained;

/// What the chain says.
#[derive(Debug, Serialize, ToSchema)]
pub struct Explanation {
    /// The route that was asked.
    #[schema(value_type = String)]
    pub route: RoutePath,
    /// How it ends.
    pub outcome: ExplainedOutcome,
    /// The status that a client would get; 200 if Imgwire gave a token.
    pub status: u16,
    /// The code that a client would get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// What each policy said, up to the one that ended it.
    pub policies: Vec<ExplainedPolicy>,
}

/// How a described request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExplainedOutcome {
    /// Every policy agreed.
    Allow,
    /// A policy refused.
    Deny,
    /// A policy could not tell.
    Fault,
}

/// What one policy said.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplainedPolicy {
    /// Its name.
    #[schema(value_type = String)]
    pub name: PolicyName,
    /// Its kind.
    pub kind: &'static str,
    /// `allow`, `deny`, `fault`, or `skip` where its condition is false.
    pub verdict: &'static str,
    /// Why; and whether it made no difference, because the policy is observed or may fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it took, in microseconds.
    pub micros: u64,
}

impl From<Explained> for Explanation {
    fn from(explained: Explained) -> Self {
        let (outcome, result) = match explained.outcome {
            // A preview reserves nothing.
            Outcome::Allowed(_) => (ExplainedOutcome::Allow, Ok(())),
            Outcome::Denied { denial, .. } => {
                (ExplainedOutcome::Deny, Err(ApiError::Denied(denial)))
            }
            Outcome::Faulted { .. } => (ExplainedOutcome::Fault, Err(ApiError::Internal)),
        };
        let (status, code) = ApiError::describe_result(&result);
        Self {
            route: explained.route,
            outcome,
            status,
            code,
            policies: explained.steps.into_iter().map(describe).collect(),
        }
    }
}

fn describe(step: Step) -> ExplainedPolicy {
    let (verdict, reason) = match step.result {
        StepResult::Allow => ("allow", None),
        StepResult::Skip => ("skip", Some("its condition is false".to_owned())),
        StepResult::Deny(reason) => ("deny", Some(reason)),
        StepResult::Fault(reason) => ("fault", Some(reason)),
    };
    let mut reasons = Vec::new();
    if let Some(reason) = reason {
        let overlooked = if step.tolerated { " (overlooked)" } else { "" };
        reasons.push(format!("{reason}{overlooked}"));
    }
    if let Some(error) = step.condition_error {
        reasons.push(format!("its condition is not false: {error}"));
    }
    ExplainedPolicy {
        name: step.policy,
        kind: step.kind,
        verdict,
        reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
        micros: u64::try_from(step.took.as_micros()).unwrap_or(u64::MAX),
    }
}
