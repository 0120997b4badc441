//! `remote`: another service decides, based on the facts.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    BoxFuture, BuildContext, BuildError, CallSettings, Clock, Decider, Decision, Denial, Endpoint,
    Interval, Policy, PolicyInput, PolicyKind, Protocol, Question, Reads, Requirements,
    SecretSource, ServiceCall, Verdict,
};

/// Another service decides.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoteSettings {
    /// What is asked, by POST, with the facts as JSON.
    pub url: Endpoint,
    /// How it is asked.
    #[serde(default)]
    pub protocol: Protocol,
    /// The bearer token that it is asked with.
    #[serde(default)]
    pub token: Option<SecretSource>,
    /// Lets the token travel over plain http to another machine.
    #[serde(default)]
    pub insecure_http: bool,
    /// How long it may take.
    #[serde(default = "default_timeout")]
    pub timeout: Interval,
    /// How long its answer is remembered; left out: not at all.
    #[serde(default)]
    pub cache: Option<Interval>,
}

fn default_timeout() -> Interval {
    Interval::from_secs(2)
}

impl PolicyKind for RemoteSettings {
    const NAME: &'static str = "remote";

    fn describe(&self) -> String {
        format!("{} agrees", self.url.as_str())
    }

    fn requirements(&self) -> Requirements {
        Requirements {
            // The service receives all facts.
            claims: Reads::All,
            service: Some(ServiceCall {
                endpoint: self.url.clone(),
                token: self.token.clone(),
                insecure_http: self.insecure_http,
                is_template: false,
            }),
            ..Requirements::default()
        }
    }

    fn build(&self, context: BuildContext<'_>) -> Result<Arc<dyn Policy>, BuildError> {
        let call = CallSettings {
            timeout: self.timeout,
            cache: self.cache,
        };
        Ok(Arc::new(Remote {
            decider: context.ports.decider(&self.url, self.protocol, call)?,
            clock: context.clock.clone(),
        }))
    }
}

struct Remote {
    decider: Arc<dyn Decider>,
    clock: Arc<dyn Clock>,
}

impl Policy for Remote {
    fn decide<'a>(&'a self, input: PolicyInput<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            let question = Question {
                request: input.request,
                facts: input.facts,
                clock: &*self.clock,
            };
            let allows = self.decider.allows(question).await?;
            Ok(Decision::from(if allows {
                Verdict::Allow
            } else {
                let reason = "the service that was asked says no".to_owned();
                Verdict::Deny(Denial::RuleForbidden(reason))
            }))
        })
    }
}
