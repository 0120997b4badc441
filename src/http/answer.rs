//! The response to a request that a chain decided on: for errors the message of the policy, and the state of the limits.

use std::fmt::Write as _;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, AcceptLanguage, Header as _, HeaderMap, HeaderName, HeaderValue},
};
use policies::LimitState;

use super::error::{ApiError, refuse};
use crate::{
    config::Messages,
    gate::{
        outcome::{Failure, Report, Success},
        rules::Route,
    },
    telemetry::{HasDecision, RequestId, whole_seconds},
};

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The response. `answer` builds it if the request succeeded.
pub(super) fn decided(
    request: &HttpRequest,
    route: &Route,
    report: &Report,
    answer: impl FnOnce(&Success) -> HttpResponse,
) -> HttpResponse {
    let mut response = match &report.outcome {
        Ok(success) => answer(success),
        Err(failure) => refusal(request, route, failure),
    };
    response.extensions_mut().insert(HasDecision);
    if matches!(response.status().as_u16(), 200 | 429) {
        insert_ratelimit(response.headers_mut(), &report.details.limits);
    }
    response
}

/// The error response, with the message for the user that the denying policy has. Limits of the server have no policy.
fn refusal(request: &HttpRequest, route: &Route, failure: &Failure) -> HttpResponse {
    let error = ApiError::from(failure);
    let messages = match failure {
        Failure::Denied(Some(policy), denial) if !denial.is_of_server() => {
            route.messages.iter().find(|(name, _)| name == policy)
        }
        _ => None,
    };
    let Some((_, messages)) = messages else {
        return refuse(request, &error);
    };
    let wanted = AcceptLanguage::parse(request).map(|wanted| wanted.ranked());
    let wanted = wanted.unwrap_or_default();
    let wanted = wanted.iter().filter_map(|language| language.item());
    let message = choose(messages, wanted.map(|language| language.as_str()));
    let mut response = error.response_with(&RequestId::of(request), Some(message));
    let vary = HeaderValue::from_static("accept-language");
    response.headers_mut().append(header::VARY, vary);
    response
}

/// The text in the first available of the `wanted` languages, each also tried without its region (RFC 4647, 3.4).
/// Otherwise the English text, or else any.
fn choose<'a>(messages: &Messages, wanted: impl IntoIterator<Item = &'a str>) -> &str {
    let find = |tag: &str| {
        let mut texts = messages.texts();
        let text = texts.find(|(language, _)| language.eq_ignore_ascii_case(tag));
        text.map(|(_, text)| text)
    };
    wanted
        .into_iter()
        .find_map(|tag| find(tag).or_else(|| find(tag.split('-').next()?)))
        .or_else(|| find("en"))
        .or_else(|| messages.texts().next().map(|(_, text)| text))
        .unwrap_or_default()
}

/// Adds `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers.
fn insert_ratelimit(headers: &mut HeaderMap, limits: &[LimitState]) {
    if limits.is_empty() {
        return;
    }
    let (mut policies, mut states) = (String::new(), String::new());
    for (index, limit) in limits.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        let (name, quota, remaining) = (limit.policy.as_str(), limit.limit, limit.remaining);
        let window = limit.window.as_secs().max(1);
        let resets_in = whole_seconds(limit.resets_in);
        // Writing to a `String` cannot fail.
        let _ = write!(policies, "{separator}\"{name}\";q={quota};w={window}");
        let _ = write!(states, "{separator}\"{name}\";r={remaining};t={resets_in}");
    }
    for (name, value) in [(RATELIMIT_POLICY, policies), (RATELIMIT, states)] {
        // Policy names are letters, digits and `-_.`; the settings check that.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}
