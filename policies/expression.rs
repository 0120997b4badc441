//! `expression`: a rule in CEL, the Common Expression Language.

use std::sync::Arc;

use futures_util::future::ready;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    BoxFuture, BuildContext, BuildError, Condition, Decision, Denial, Expression, Policy,
    PolicyInput, PolicyKind, Requirements, Verdict,
};

/// A rule in CEL, the Common Expression Language.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpressionSettings {
    /// A CEL expression. Any result except `true` denies.
    pub allow: Expression,
}

impl PolicyKind for ExpressionSettings {
    const NAME: &'static str = "expression";
    const CAN_FAIL: bool = false;

    fn describe(&self) -> String {
        self.allow.to_string()
    }

    fn requirements(&self) -> Requirements {
        Requirements {
            claims: self.allow.claims(),
            ..Requirements::default()
        }
    }

    fn build(&self, context: BuildContext<'_>) -> Result<Arc<dyn Policy>, BuildError> {
        let allow = Condition::new(self.allow.clone(), context.clock.clone());
        Ok(Arc::new(ExpressionPolicy(allow)))
    }
}

struct ExpressionPolicy(Condition);

impl Policy for ExpressionPolicy {
    fn decide<'a>(&'a self, input: PolicyInput<'a>) -> BoxFuture<'a, Decision> {
        let PolicyInput { request, facts, .. } = input;
        let reason = match self.0.evaluate(request, facts) {
            Ok(true) => None,
            Ok(false) => Some("the expression is false".to_owned()),
            // An expression without a value is a denial, not a fault, because nothing is down.
            Err(error) => Some(error.to_string()),
        };
        let verdict = reason.map_or(Verdict::Allow, |reason| {
            Verdict::Deny(Denial::RuleForbidden(reason))
        });
        Box::pin(ready(Ok(Decision::from(verdict))))
    }
}
