//! The management listener: whether the gate lives, whether it is ready, what it counted, and, for whoever may
//! ask, why it decides as it does.

use std::{net::SocketAddr, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderMap},
    web,
};
use aws_lc_rs::{constant_time, digest};
use jiff::Timestamp;
use policies::{Counted, Denial, Fault};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Gate,
    body::{Object, is_json},
    refuse,
};
use crate::{
    error::ApiError,
    explain::{DescribedRequest, Explanation},
    imgwire::BreakerState,
    openapi::{self, ManagementRefusals},
    request_id::RequestId,
    telemetry,
};

/// What the management listener knows.
#[derive(Clone)]
pub struct Management {
    /// What all workers share.
    pub gate: Arc<Gate>,
    /// What opens the endpoints that tell or change more, from other machines.
    pub token: Option<SecretString>,
}

/// Whether the gate is ready.
#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// Whether requests may come.
    ready: bool,
    /// The parts that are not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failing: Vec<String>,
    /// The parts that serve what they have, for nothing newer can be had, and those that others may stand in for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    degraded: Vec<String>,
}

/// Mounts the management endpoints.
pub fn mount(config: &mut web::ServiceConfig, management: &Management) {
    config
        .app_data(web::Data::new(management.clone()))
        .service(web::resource("/livez").route(web::get().to(live)))
        .service(web::resource("/readyz").route(web::get().to(ready)))
        .service(web::resource("/metrics").route(web::get().to(metrics)))
        .service(web::resource("/openapi.json").route(web::get().to(document)))
        .service(
            web::resource("/log")
                .route(web::get().to(log))
                .route(web::put().to(set_log)),
        )
        .service(web::resource("/explain").route(web::post().to(explain)))
        .service(
            web::resource("/quota/{policy}")
                .route(web::get().to(quota))
                .route(web::delete().to(give_back)),
        );
}

/// Lets in who is on this machine, or has the token.
fn admit(
    peer: Option<SocketAddr>,
    headers: &HeaderMap,
    token: Option<&SecretString>,
) -> Result<(), ApiError> {
    // The peer of a Unix socket has no address, and is on this machine.
    if peer.is_none_or(|peer| peer.ip().to_canonical().is_loopback()) {
        return Ok(());
    }
    let header = headers.get(header::AUTHORIZATION);
    let presented = header.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    match (token, presented) {
        (Some(token), Some(presented)) if is_same(token.expose_secret(), presented) => Ok(()),
        (_, Some(_)) => {
            let reason = "it is not the management token".to_owned();
            Err(ApiError::Denied(Denial::InvalidCredentials(reason)))
        }
        (_, None) => Err(ApiError::Denied(Denial::NotSignedIn)),
    }
}

fn admitted(request: &HttpRequest, management: &Management) -> Result<(), ApiError> {
    let token = management.token.as_ref();
    admit(request.peer_addr(), request.headers(), token)
}

/// Compares in a time that tells nothing.
fn is_same(one: &str, other: &str) -> bool {
    let digest = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
    let (one, other) = (digest(one), digest(other));
    constant_time::verify_slices_are_equal(one.as_ref(), other.as_ref()).is_ok()
}

/// Says what each policy decides on a described request, and consumes nothing.
#[utoipa::path(
    post,
    path = "/explain",
    tag = "management",
    operation_id = "explain",
    request_body = DescribedRequest,
    security(("bearer" = []), ()),
    responses((status = 200, description = "What each says", body = Explanation),
        ManagementRefusals)
)]
pub(crate) async fn explain(
    request: HttpRequest,
    body: web::Bytes,
    management: web::Data<Management>,
) -> HttpResponse {
    if let Err(error) = admitted(&request, &management) {
        return refuse(&request, &error);
    }
    // Only a page that may send JSON here may ask: others meet a preflight, which nobody answers.
    if !is_json(request.headers()) {
        return refuse(&request, &ApiError::UnsupportedMediaType);
    }
    let Ok(Object(described)) = serde_json::from_slice(&body) else {
        return refuse(&request, &ApiError::BadRequest);
    };
    match crate::explain::explain(&management.gate, described).await {
        Ok(explanation) => HttpResponse::Ok().json(explanation),
        Err(_) => refuse(&request, &ApiError::NotFound),
    }
}

/// Which lines are written, by level and target.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogFilter {
    /// Directives as of `RUST_LOG`, for example `info,decision=off`.
    filter: String,
}

/// Says which lines the log has.
#[utoipa::path(
    get,
    path = "/log",
    tag = "management",
    operation_id = "show_log_filter",
    security(("bearer" = []), ()),
    responses((status = 200, description = "By level and target", body = LogFilter),
        ManagementRefusals)
)]
pub(crate) async fn log(request: HttpRequest, management: web::Data<Management>) -> HttpResponse {
    if let Err(error) = admitted(&request, &management) {
        return refuse(&request, &error);
    }
    let filter = telemetry::log_filter();
    HttpResponse::Ok().json(LogFilter { filter })
}

/// Has the log write other lines.
#[utoipa::path(
    put,
    path = "/log",
    tag = "management",
    operation_id = "set_log_filter",
    request_body = LogFilter,
    security(("bearer" = []), ()),
    responses((status = 204, description = "It does"),
        ManagementRefusals)
)]
pub(crate) async fn set_log(
    request: HttpRequest,
    body: web::Bytes,
    management: web::Data<Management>,
) -> HttpResponse {
    if let Err(error) = admitted(&request, &management) {
        return refuse(&request, &error);
    }
    if !is_json(request.headers()) {
        return refuse(&request, &ApiError::UnsupportedMediaType);
    }
    let Ok(Object(LogFilter { filter })) = serde_json::from_slice(&body) else {
        return refuse(&request, &ApiError::BadRequest);
    };
    let id = RequestId::of(&request);
    match telemetry::set_log_filter(&filter) {
        Ok(()) => {
            tracing::warn!(
                request_id = id.as_str(),
                filter,
                "the log writes other lines now"
            );
            HttpResponse::NoContent().finish()
        }
        Err(error) => {
            tracing::warn!(
                request_id = id.as_str(),
                filter,
                error,
                "the log's filter is wrong"
            );
            refuse(&request, &ApiError::BadRequest)
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct Key {
    key: String,
}

/// What is counted under a key.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Used<'a> {
    /// The policy.
    policy: &'a str,
    /// The key.
    key: &'a str,
    /// The units that are used.
    used: u64,
    /// When their window began.
    #[schema(value_type = String, format = DateTime)]
    window_start: Timestamp,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    resets_at: Timestamp,
}

/// Says what is counted under a key.
#[utoipa::path(
    get,
    path = "/quota/{policy}",
    tag = "management",
    operation_id = "show_quota",
    params(("policy" = String, Path, description = "A policy that counts"), ("key" = String, Query, description = "The parts of `per`, joined by `/`")),
    security(("bearer" = []), ()),
    responses((status = 200, description = "What is used", body = Used),
        ManagementRefusals)
)]
pub(crate) async fn quota(
    request: HttpRequest,
    policy: web::Path<String>,
    key: web::Query<Key>,
    management: web::Data<Management>,
) -> HttpResponse {
    let used = with_counters(&request, &management, &policy, async |counted| {
        counted.used(&key.key).await
    });
    match used.await {
        Ok((used, window)) => HttpResponse::Ok().json(Used {
            policy: &policy,
            key: &key.key,
            used,
            window_start: window.start,
            resets_at: window.end,
        }),
        Err(refusal) => refusal,
    }
}

/// Gives back what is counted under a key.
#[utoipa::path(
    delete,
    path = "/quota/{policy}",
    tag = "management",
    operation_id = "give_quota_back",
    params(("policy" = String, Path, description = "A policy that counts"), ("key" = String, Query, description = "The parts of `per`, joined by `/`")),
    security(("bearer" = []), ()),
    responses((status = 204, description = "Nothing is used"),
        ManagementRefusals)
)]
pub(crate) async fn give_back(
    request: HttpRequest,
    policy: web::Path<String>,
    key: web::Query<Key>,
    management: web::Data<Management>,
) -> HttpResponse {
    let given_back = with_counters(&request, &management, &policy, async |counted| {
        counted.give_back(&key.key).await
    });
    match given_back.await {
        Ok(()) => {
            let id = RequestId::of(&request);
            tracing::info!(
                request_id = id.as_str(),
                policy = policy.as_str(),
                key = key.key,
                "the operator gave a quota back"
            );
            HttpResponse::NoContent().finish()
        }
        Err(refusal) => refusal,
    }
}

/// Does something with the counters of a policy of this name, for one who may.
async fn with_counters<T>(
    request: &HttpRequest,
    management: &Management,
    name: &str,
    act: impl AsyncFnOnce(&dyn Counted) -> Result<T, Fault>,
) -> Result<T, HttpResponse> {
    admitted(request, management).map_err(|error| refuse(request, &error))?;
    let rules = management.gate.rules.load_full();
    let mut policies = rules.policies.iter();
    let policy = policies.find(|(other, _)| other.as_str() == name);
    let counted = policy.and_then(|(_, policy)| policy.counted());
    let counted = counted.ok_or_else(|| refuse(request, &ApiError::NotFound))?;
    let done = act(counted).await;
    done.map_err(|fault| failed(request, name, &fault))
}

fn failed(request: &HttpRequest, policy: &str, fault: &Fault) -> HttpResponse {
    let id = RequestId::of(request);
    tracing::error!(request_id = id.as_str(), policy, error = %fault, "a store cannot tell");
    refuse(request, &ApiError::Internal)
}

/// Says that the process answers.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "management",
    operation_id = "show_liveness",

    responses((status = 200, description = "It lives"))
)]
pub(crate) async fn live() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({ "live": true }))
}

/// Says whether the gate is ready, and which parts are not.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "management",
    operation_id = "show_readiness",

    responses(
        (status = 200, description = "It is ready", body = Readiness),
        (status = 503, description = "It is not", body = Readiness))
)]
pub(crate) async fn ready(management: web::Data<Management>) -> HttpResponse {
    let rules = management.gate.rules.load();
    let mut failing: Vec<_> = rules
        .stores
        .iter()
        .filter(|store| !store.is_healthy())
        .map(|store| format!("stores.{}", store.name))
        .collect();
    let mut degraded = Vec::new();
    for (name, keys) in rules.identities.keys() {
        let part = format!("identities.{name}");
        if keys.keys == 0 {
            failing.push(part);
        } else if keys.failure.is_some() {
            degraded.push(part);
        }
    }
    let breaker = management.gate.upstream.breaker.as_ref();
    if breaker.is_some_and(|breaker| breaker.state() != BreakerState::Closed) {
        degraded.push("imgwire".to_owned());
    }
    if management.gate.in_flight.is_draining() {
        failing.push("draining".to_owned());
    }
    let readiness = Readiness {
        ready: failing.is_empty(),
        failing,
        degraded,
    };
    if readiness.ready {
        HttpResponse::Ok().json(readiness)
    } else {
        HttpResponse::ServiceUnavailable().json(readiness)
    }
}

/// Gives what is counted to Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "management",
    operation_id = "show_metrics",

    responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"))
)]
pub(crate) async fn metrics(management: web::Data<Management>) -> HttpResponse {
    const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let gate = &management.gate;
    for (name, keys) in gate.rules.load().identities.keys() {
        let is_stale = keys.failure.is_some();
        gate.metrics.identity_keys(name, keys.keys, is_stale);
    }
    gate.metrics.upstream(&gate.upstream);
    for store in &gate.rules.load().stores {
        gate.metrics.store_up(&store.name, store.is_healthy());
    }
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, TEXT))
        .body(gate.metrics.encode(gate.in_flight.count()))
}

/// This API, with the routes that are in force.
async fn document(management: web::Data<Management>) -> HttpResponse {
    let rules = management.gate.rules.load();
    let routes = rules.routes.iter().map(|route| route.path.as_str());
    HttpResponse::Ok().json(openapi::document(routes))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn status(peer: Option<&str>, authorization: Option<&str>, token: Option<&str>) -> u16 {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            let value = HeaderValue::from_str(value).expect("the value is a header's");
            headers.insert(header::AUTHORIZATION, value);
        }
        let peer = peer.map(|peer| peer.parse().expect("the peer is an address"));
        let token = token.map(SecretString::from);
        match admit(peer, &headers, token.as_ref()) {
            Ok(()) => 200,
            Err(error) => error.describe().0.as_u16(),
        }
    }

    #[test]
    fn only_this_machine_or_the_token_opens_the_endpoints() {
        let token = Some("a management token");
        let bearer = Some("Bearer a management token");
        for peer in [
            None,
            Some("127.0.0.1:1"),
            Some("127.9.9.9:1"),
            Some("[::1]:1"),
            Some("[::ffff:127.0.0.1]:1"),
        ] {
            assert_eq!(status(peer, None, None), 200, "{peer:?}");
        }
        for peer in [Some("192.0.2.1:1"), Some("[2001:db8::1]:1")] {
            assert_eq!(status(peer, bearer, token), 200);
            assert_eq!(status(peer, None, token), 401);
            assert_eq!(status(peer, None, None), 401);
            assert_eq!(status(peer, bearer, None), 401);
            for other in [
                "Bearer ",
                "Bearer a management toke",
                "Basic a",
                "a management token",
            ] {
                assert_eq!(status(peer, Some(other), token), 401, "{other}");
            }
        }
    }
}
