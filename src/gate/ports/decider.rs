//! Decisions of an HTTP service, for `remote` policies.

use std::time::Duration;

use actix_web::http::{
    Method, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use bytes::Bytes;
use policies::{
    BoxFuture, BuildError, CallSettings, Decider, Endpoint, Fault, PolicyName, Protocol, Question,
};
use serde_json::json;

use crate::{
    config::ServiceUrl,
    outbound::{
        InvalidResponse, JsonObject, Outbound, OutboundRequest, Resend,
        digest::digest_of,
        single_flight::{ServiceResult, SingleFlightCache},
    },
    telemetry::CallResult,
};

const MAX_RESPONSE_BYTES: usize = 64 * 1024;

pub struct HttpDecider {
    policy: PolicyName,
    url: String,
    protocol: Protocol,
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
    answers: SingleFlightCache<bool>,
    outbound: Outbound,
}

impl HttpDecider {
    pub fn new(
        policy: PolicyName,
        endpoint: &Endpoint,
        protocol: Protocol,
        call: CallSettings,
        mut headers: Vec<(HeaderName, HeaderValue)>,
        outbound: &Outbound,
    ) -> Result<Self, BuildError> {
        let url = ServiceUrl::try_from(endpoint.as_str().to_owned());
        let url = url.map_err(|error| BuildError::Other(error.into()))?;
        let json = HeaderValue::from_static("application/json");
        headers.push((header::CONTENT_TYPE, json));
        Ok(Self {
            policy,
            url: url.as_str().to_owned(),
            protocol,
            headers,
            timeout: call.timeout.get(),
            answers: SingleFlightCache::new(
                call.cache.map(policies::Interval::get),
                |allows| !allows,
                outbound,
            ),
            outbound: outbound.clone(),
        })
    }

    async fn ask(&self, question: Question<'_>) -> ServiceResult<bool> {
        let answer = self.decide(question).await;
        let (metrics, result) = (&self.outbound.metrics, CallResult::of(&answer));
        metrics.policy_calls(self.policy.clone(), result).inc();
        answer
    }

    async fn decide(&self, question: Question<'_>) -> ServiceResult<bool> {
        let body = match self.protocol {
            Protocol::Plain => json!(question),
            Protocol::Opa => json!({ "input": question }),
        };
        let outgoing = OutboundRequest {
            method: Method::POST,
            url: &self.url,
            headers: self.headers.clone(),
            body: Bytes::from(body.to_string()),
            timeout: self.timeout,
            max_response_bytes: MAX_RESPONSE_BYTES,
            // The service may count or record the question.
            resend: Resend::Unsafe,
        };
        let answer = self.outbound.http.send(outgoing).await?;
        match self.protocol {
            Protocol::Plain if answer.status.is_success() => Ok(true),
            Protocol::Plain if answer.status == StatusCode::FORBIDDEN => Ok(false),
            Protocol::Opa if answer.status == StatusCode::OK => {
                match JsonObject::parse(&answer.body)?.take_bool("result") {
                    // OPA omits the result if the rule is undefined for these facts.
                    Err(InvalidResponse::Missing(_)) => Ok(false),
                    result => Ok(result?),
                }
            }
            _ => Err(answer.unexpected_status()),
        }
    }
}

impl Decider for HttpDecider {
    fn allows<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            // The cache key excludes the time, which would make every question unique.
            let asked = question
                .cache_key()
                .map_err(|error| Fault::Service(error.into()))?;
            let asked = digest_of(&asked);
            let answer = self.answers.get(&asked, self.ask(question)).await;
            answer.map_err(|fault| Fault::Service(Box::new(fault)))
        })
    }
}
