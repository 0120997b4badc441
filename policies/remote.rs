//! `remote`: another service decides, based on the facts of the request.

use std::{net::Ipv4Addr, sync::Arc};

use futures_util::future::ready;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    AcceptedIdentities, BoxFuture, BuildContext, BuildError, CallSettings, Clock, Credentials,
    Decider, Decision, Denial, Endpoint, Facts, Fault, Interval, Policy, PolicyInput, PolicyKind,
    Presented, Protocol, Question, Reads, Requirements, RoutePath, SecretSource, ServiceCall,
    UploadRequest, Verdict, engine::ports::default_timeout,
};

/// Another service decides, based on the facts of the request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoteSettings {
    /// The URL of the service. The gate sends the facts as JSON, by POST.
    pub url: Endpoint,
    /// The format of the request and of the response.
    #[serde(default)]
    pub protocol: Protocol,
    /// The bearer token for the service.
    #[serde(default)]
    pub token: Option<SecretSource>,
    /// Whether the token may be sent over plain http to another machine.
    #[serde(default)]
    pub insecure_http: bool,
    /// How long a call may take.
    #[serde(default = "default_timeout")]
    pub timeout: Interval,
    /// How long a response is cached. Without it, responses are not cached.
    #[serde(default)]
    pub cache: Option<Interval>,
}

impl PolicyKind for RemoteSettings {
    const NAME: &'static str = "remote";

    fn describe(&self) -> String {
        format!("{} allows it", self.url.as_str())
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

/// A request without credentials, for [`Policy::try_out`].
struct NoCredentials;

impl Credentials for NoCredentials {
    fn authenticate<'a>(&'a self, _: &'a AcceptedIdentities) -> BoxFuture<'a, Presented> {
        Box::pin(ready(Ok(Presented::Nothing)))
    }
}

impl Policy for Remote {
    /// Asks about a request that nobody sent. Either answer is a decision.
    fn try_out(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async {
            let request = UploadRequest {
                route: RoutePath::parse("/imgwire-gate-doctor")
                    .map_err(|error| Fault::Service(error.into()))?,
                workspace: None,
                purpose: None,
                file: None,
                ip: Ipv4Addr::LOCALHOST.into(),
                credentials: Box::new(NoCredentials),
            };
            let question = Question {
                request: &request,
                facts: &Facts::default(),
                clock: &*self.clock,
            };
            let decision = if self.decider.allows(question).await? {
                "allows"
            } else {
                "denies"
            };
            Ok(Some(format!(
                "the service was asked about a request without a user, and {decision} it"
            )))
        })
    }

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
                let reason = "the service denies the request".to_owned();
                Verdict::Deny(Denial::RuleForbidden(reason))
            }))
        })
    }
}
