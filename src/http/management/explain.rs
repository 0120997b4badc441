//! `POST /explain`: explains what the policies decide about a described request. `imgwire-gate explain` prints the same.

use actix_web::{HttpRequest, HttpResponse, web};
use policies::{Outcome, PolicyName, RoutePath, Step, StepResult};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Management, read};
use crate::{
    gate::explain::{DescribedRequest, Explained},
    http::{
        context::Gate,
        error::{ApiError, ManagementErrors, NO_ROUTE, refuse},
    },
};

/// Explains what each policy decides about a described request. Consumes nothing.
#[utoipa::path(
    post,
    path = "/explain",
    tag = "management",
    operation_id = "explain",
    request_body = DescribedRequest,
    security(("bearer" = []), ()),
    responses((status = 200, description = "The explanation", body = Explanation),
        ManagementErrors)
)]
pub(crate) async fn explain(
    request: HttpRequest,
    body: web::Bytes,
    management: web::Data<Management>,
) -> HttpResponse {
    explained(&request, &management.gate, &body).await
}

/// Responds to a described request in `body`.
pub(crate) async fn explained(request: &HttpRequest, gate: &Gate, body: &[u8]) -> HttpResponse {
    let described: DescribedRequest = match read(request, body) {
        Ok(described) => described,
        Err(error) => return refuse(request, &error),
    };
    let rules = gate.rules.load_full();
    match crate::gate::explain::explain(&rules, &*gate.clock, described).await {
        Ok(explained) => HttpResponse::Ok().json(Explanation::from(explained)),
        Err(_) => refuse(request, &ApiError::NotFound(NO_ROUTE)),
    }
}

/// What the policies decide about a described request.
#[derive(Debug, Serialize, ToSchema)]
pub struct Explanation {
    /// The path of the route.
    #[schema(value_type = String)]
    pub route: RoutePath,
    /// The outcome.
    pub outcome: ExplainedOutcome,
    /// The HTTP status that a client would get; 200 if Imgwire creates a token.
    pub status: u16,
    /// The error code that a client would get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// The result of each policy, up to the one that ended the request.
    pub policies: Vec<ExplainedPolicy>,
}

/// The outcome of a described request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExplainedOutcome {
    /// All policies allow the request.
    Allow,
    /// A policy denies the request.
    Deny,
    /// A policy could not decide.
    Fault,
}

/// The result of one policy.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplainedPolicy {
    /// The name of the policy.
    #[schema(value_type = String)]
    pub name: PolicyName,
    /// The kind of the policy.
    pub kind: &'static str,
    /// `allow`, `deny`, `fault`, or `skip` if its `when` is false.
    pub verdict: &'static str,
    /// The reason, with `(tolerated)` if the request continues despite a denial or fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The evaluation time in microseconds.
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
        StepResult::Allow(note) => ("allow", note),
        StepResult::Skip => ("skip", Some("`when` is false".to_owned())),
        StepResult::Deny(reason) => ("deny", Some(reason)),
        StepResult::Fault(reason) => ("fault", Some(reason)),
    };
    let mut reasons = Vec::new();
    if let Some(reason) = reason {
        let tolerated = if step.tolerated { " (tolerated)" } else { "" };
        reasons.push(format!("{reason}{tolerated}"));
    }
    if let Some(error) = step.condition_error {
        reasons.push(format!(
            "`when` could not be evaluated and counts as true: {error}"
        ));
    }
    ExplainedPolicy {
        name: step.policy,
        kind: step.kind,
        verdict,
        reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
        micros: u64::try_from(step.took.as_micros()).unwrap_or(u64::MAX),
    }
}
