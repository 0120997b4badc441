//! `remote`: another service decides, based on the facts.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    BoxFuture, BuildContext, BuildError, Clock, Decision, Denial, Facts, Interval, Policy,
    PolicyInput, PolicyKind, Reads, Requirements, SecretSource, ServiceCall, ServiceUrl,
    UploadRequest, Verdict,
    engine::facts::{self, Group},
};

/// Another service decides.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoteSettings {
    /// What is asked, by POST, with the facts as JSON.
    pub url: ServiceUrl,
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
                token: self.token.clone(),
                is_private: self.url.is_private(),
                insecure_http: self.insecure_http,
                names_user_in_path: false,
            }),
            ..Requirements::default()
        }
    }

    fn build(&self, context: BuildContext<'_>) -> Result<Arc<dyn Policy>, BuildError> {
        Ok(Arc::new(Remote {
            decider: context.ports.decider(self),
            clock: context.clock.clone(),
        }))
    }
}

/// How a service is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// The facts; 2xx allows, 403 denies.
    #[default]
    Plain,
    /// `{"input": facts}` as Open Policy Agent takes it; `{"result": true}` allows, `false` or none denies.
    Opa,
}

/// A service that decides: the port that the gate implements.
pub trait Decider: Send + Sync {
    /// Whether these facts are allowed.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`](crate::Fault) if the service gives no usable answer.
    fn allows<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, bool>;
}

/// The question to a service: the facts of a request.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// What the client requests.
    pub request: &'a UploadRequest,
    /// What the earlier policies established.
    pub facts: &'a Facts,
    /// The source of time.
    pub clock: &'a dyn Clock,
}

/// A fact that is unknown has no key.
impl Serialize for Question<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.list(Some(self.clock), |facts| facts.serialize(serializer))
    }
}

impl Question<'_> {
    /// What identifies the question: every fact except the time.
    ///
    /// # Errors
    ///
    /// If the facts cannot be written as JSON.
    pub fn cache_key(&self) -> serde_json::Result<Vec<u8>> {
        self.list(None, |facts| serde_json::to_vec(&facts))
    }

    fn list<T>(&self, clock: Option<&dyn Clock>, read: impl FnOnce(Group<'_>) -> T) -> T {
        facts::list(Some(self.request), Some(self.facts), clock, read)
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
