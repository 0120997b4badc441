//! Decisions of an HTTP service, for `remote` policies.

use std::time::Duration;

use actix_web::http::{
    Method, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use bytes::Bytes;
use policies::{BoxFuture, Decider, Fault, PolicyName, Protocol, Question, RemoteSettings};
use secrecy::SecretString;
use serde_json::json;

use super::{MAX_RESPONSE_BYTES, authorization};
use crate::outbound::{
    InvalidResponse, Object, Outbound, Outgoing, Repeat,
    answers::{Answer, Answers, ServiceFault},
    digest::digest_of,
};
use crate::telemetry::CallResult;

pub struct HttpDecider {
    policy: PolicyName,
    url: String,
    protocol: Protocol,
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
    answers: Answers<bool>,
    outbound: Outbound,
}

impl HttpDecider {
    #[must_use]
    pub fn new(
        policy: PolicyName,
        settings: &RemoteSettings,
        token: Option<&SecretString>,
        outbound: &Outbound,
    ) -> Self {
        let mut headers = authorization(token);
        let json = HeaderValue::from_static("application/json");
        headers.push((header::CONTENT_TYPE, json));
        Self {
            policy,
            url: settings.url.as_str().to_owned(),
            protocol: settings.protocol,
            headers,
            timeout: settings.timeout.get(),
            answers: Answers::new(
                settings.cache.map(policies::Interval::get),
                |allows| !allows,
                outbound,
            ),
            outbound: outbound.clone(),
        }
    }

    async fn ask(&self, question: Question<'_>) -> Answer<bool> {
        let answer = self.decide(question).await;
        let (metrics, result) = (&self.outbound.metrics, CallResult::of(&answer));
        metrics.policy_calls(self.policy.clone(), result).inc();
        answer
    }

    async fn decide(&self, question: Question<'_>) -> Answer<bool> {
        let body = match self.protocol {
            Protocol::Plain => json!(question),
            Protocol::Opa => json!({ "input": question }),
        };
        let outgoing = Outgoing {
            method: Method::POST,
            url: &self.url,
            headers: self.headers.clone(),
            body: Bytes::from(body.to_string()),
            timeout: self.timeout,
            limit: MAX_RESPONSE_BYTES,
            // The service may count or record the question.
            repeat: Repeat::Harmful,
        };
        let answer = self.outbound.http.send(outgoing).await?;
        match self.protocol {
            Protocol::Plain if answer.status.is_success() => Ok(true),
            Protocol::Plain if answer.status == StatusCode::FORBIDDEN => Ok(false),
            Protocol::Opa if answer.status == StatusCode::OK => {
                match Object::parse(&answer.body)?.take_bool("result") {
                    // OPA omits the result if the rule is undefined for these facts.
                    Err(InvalidResponse::Missing(_)) => Ok(false),
                    result => Ok(result?),
                }
            }
            _ => Err(ServiceFault::Status(answer.status.as_u16())),
        }
    }
}

impl Decider for HttpDecider {
    fn allows<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            // The cache key excludes the time, which would make every question unique.
            let asked = question
                .identity()
                .map_err(|error| Fault::Service(error.into()))?;
            let asked = digest_of(&asked);
            let answer = self.answers.get(&asked, self.ask(question)).await;
            answer.map_err(|fault| Fault::Service(Box::new(fault)))
        })
    }
}
