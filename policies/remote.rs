//! `remote`: another service decides, based on the facts of the request.

use std::{net::Ipv4Addr, sync::Arc};

use futures_util::future::ready;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    AcceptedIdentities, BoxFuture, BuildContext, BuildError, CallSettings, Claims, Clock,
    Credentials, Decider, Decision, Denial, Endpoint, Facts, Fault, IdentityName, Interval,
    InvalidId, Policy, PolicyInput, PolicyKind, Presented, Protocol, Question, Reads, Requirements,
    RoutePath, SecretSource, ServiceCall, Subject, SubjectId, UploadRequest, Verdict,
    engine::ports::default_timeout,
};

/// Another service decides, based on the facts of the request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoteSettings {
    /// The URL of the service. The gate sends the facts as JSON, by POST.
    pub url: Endpoint,
    /// The format of the request and of the response. Default: `"plain"`.
    #[serde(default)]
    pub protocol: Protocol,
    /// The bearer token for the service. Default: none.
    #[serde(default)]
    pub token: Option<SecretSource>,
    /// Whether the token may be sent over plain http to another machine.
    #[serde(default)]
    pub insecure_http: bool,
    /// How long a call may take. Default: `"2s"`.
    #[serde(default = "default_timeout")]
    pub timeout: Interval,
    /// How long a response is cached. Default: none; the gate asks for every request.
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

/// A request of a user that does not exist, for [`Policy::try_out`].
fn unknown_user() -> Result<(UploadRequest, Facts), InvalidId> {
    const NAME: &str = "imgwire-gate-doctor";

    let request = UploadRequest {
        route: RoutePath::parse("/imgwire-gate-doctor")?,
        workspace: None,
        purpose: None,
        file: None,
        ip: Ipv4Addr::LOCALHOST.into(),
        credentials: Box::new(NoCredentials),
    };
    let subject = Subject {
        id: SubjectId::parse(NAME)?,
        identity: IdentityName::parse(NAME)?,
        session: false,
        claims: Claims::default(),
        expires_at: None,
    };
    Ok((request, Facts::new(Some(Arc::new(subject)), None)))
}

struct NoCredentials;

impl Credentials for NoCredentials {
    fn authenticate<'a>(&'a self, _: &'a AcceptedIdentities) -> BoxFuture<'a, Presented> {
        Box::pin(ready(Ok(Presented::Nothing)))
    }
}

impl Policy for Remote {
    /// Asks about a user that does not exist. Either answer is a decision.
    fn try_out(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async {
            let (request, facts) = unknown_user().map_err(|error| Fault::Service(error.into()))?;
            let question = Question {
                request: &request,
                facts: &facts,
                clock: &*self.clock,
            };
            let decision = if self.decider.allows(question).await? {
                "allows"
            } else {
                "denies"
            };
            Ok(Some(format!(
                "the service was asked about an unknown user, and {decision} the request"
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
