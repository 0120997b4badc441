//! What the page shows of a decision: the explanation and the log lines; and how it gives back what a user used.

use std::time::Duration;

use actix_web::{Error, HttpRequest, HttpResponse, web};
use policies::Pass;
use serde::Deserialize;
use serde_json::json;

use super::{
    Playground,
    admission::{Key, admit},
    answer, without_line,
};
use crate::{
    gate::explain::{DescribedRequest, describe},
    http::{
        error::ApiError,
        management::{explain::explained, read},
        refuse, worker,
    },
    telemetry::{RequestId, lines_with},
};

pub(super) async fn explain(request: HttpRequest, body: web::Bytes) -> Result<HttpResponse, Error> {
    admit(&request, Key::InHeader)?;
    let response = explained(&request, &worker(&request).gate, &body).await;
    Ok(without_line(response))
}

#[derive(Deserialize)]
pub(super) struct LinesOf {
    request: String,
}

/// The log thread writes a line a few milliseconds after the response.
const LOG_POLL: Duration = Duration::from_millis(20);
const LOG_POLLS: usize = 25;

/// The log lines of a request.
pub(super) async fn log(
    request: HttpRequest,
    query: web::Query<LinesOf>,
) -> Result<HttpResponse, Error> {
    admit(&request, Key::InHeader)?;
    let mut lines = Vec::new();
    for _ in 0..LOG_POLLS {
        lines = lines_with(&query.request);
        if lines.iter().any(|line| is_last(line)) {
            break;
        }
        tokio::time::sleep(LOG_POLL).await;
    }
    Ok(answer(&json!({ "lines": lines })))
}

/// Whether it is the line of the whole request. Lines about attempts to reach Imgwire come before it.
fn is_last(line: &str) -> bool {
    let is_attempt = line.contains(" attempt=") || line.contains("\"attempt\":");
    line.contains("status") && !is_attempt
}

/// Gives back what a demo user used of the quotas of a route.
pub(super) async fn give_back(
    request: HttpRequest,
    body: web::Bytes,
    playground: web::Data<Playground>,
) -> Result<HttpResponse, Error> {
    admit(&request, Key::InHeader)?;
    // The counters of a user's own config may be those of their app.
    if !playground.is_demo() {
        return Ok(refuse(
            &request,
            &ApiError::NotFound("only the demo users' quotas can be given back"),
        ));
    }
    let described: DescribedRequest = match read(&request, &body) {
        Ok(described) => described,
        Err(error) => return Ok(refuse(&request, &error)),
    };
    let rules = worker(&request).gate.rules.load_full();
    let Ok((route, upload)) = describe(&rules, described) else {
        return Ok(refuse(
            &request,
            &ApiError::NotFound("there is no such route"),
        ));
    };
    let facts = route.chain.evaluate(&upload, Pass::Preview).await.facts;
    let mut given_back = Vec::new();
    // Without a user, the keys would be those of all anonymous requests.
    let links = facts
        .subject
        .as_ref()
        .map_or(&[][..], |_| route.chain.links());
    let counted_by = playground.config.in_force().counted_by.clone();
    for link in links {
        let per = counted_by.iter().find(|(name, _)| *name == link.name);
        let (Some(counters), Some((_, per))) = (link.policy.counters(), per) else {
            continue;
        };
        let key = per.key(&upload, &facts);
        let id = RequestId::of(&request);
        let policy = link.name.as_str();
        if let Err(error) = counters.give_back(&key).await {
            tracing::error!(request_id = id.as_str(), policy, %error, "quota store failed");
            return Ok(refuse(&request, &ApiError::Internal));
        }
        tracing::info!(
            request_id = id.as_str(),
            policy,
            key,
            "quota reset by operator"
        );
        given_back.push(policy.to_owned());
    }
    Ok(answer(&json!({ "policies": given_back })))
}
