//! `/quota/<policy>`: shows and resets the counter of a key.

use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use policies::{Fault, PersistentCounters, PolicyName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Management;
use crate::{
    http::error::{ApiError, ManagementErrors, fail, refuse},
    telemetry::{LogFields, RequestId},
};

/// The message for a query that cannot be read.
pub(super) const QUERY: &str = "the query must have the key of one counter: ?key=KEY";

#[derive(Deserialize)]
pub(crate) struct Key {
    key: String,
}

/// The usage of a quota under a key.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Used<'a> {
    /// The name of the policy.
    policy: &'a str,
    /// The values of `per`, joined by `/`.
    key: &'a str,
    /// The number of used units in the current window.
    used: u64,
    /// When the current window started.
    #[schema(value_type = String, format = DateTime)]
    window_start: Timestamp,
    /// When the current window ends, and the count starts again from zero.
    #[schema(value_type = String, format = DateTime)]
    resets_at: Timestamp,
}

/// Returns the usage of a quota under a key.
#[utoipa::path(
    get,
    path = "/quota/{policy}",
    tag = "management",
    operation_id = "show_quota",
    params(("policy" = String, Path, description = "The name of a policy that counts units, for example of kind `quota`"), ("key" = String, Query, description = "The values of `per`, joined by `/`, for example `ws_1/user_1`")),
    security(("bearer" = []), ()),
    responses((status = 200, description = "The usage", body = Used),
        ManagementErrors)
)]
pub(crate) async fn show(
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

/// Resets the usage of a quota under a key to zero.
#[utoipa::path(
    delete,
    path = "/quota/{policy}",
    tag = "management",
    operation_id = "give_quota_back",
    params(("policy" = String, Path, description = "The name of a policy that counts units, for example of kind `quota`"), ("key" = String, Query, description = "The values of `per`, joined by `/`, for example `ws_1/user_1`")),
    security(("bearer" = []), ()),
    responses((status = 204, description = "The usage is zero"),
        ManagementErrors)
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
                "quota reset by operator"
            );
            HttpResponse::NoContent().finish()
        }
        Err(refusal) => refusal,
    }
}

const NO_POLICY: &str = "there is no such policy with counters that persist";

async fn with_counters<T>(
    request: &HttpRequest,
    management: &Management,
    name: &str,
    act: impl AsyncFnOnce(&dyn PersistentCounters) -> Result<T, Fault>,
) -> Result<T, HttpResponse> {
    let rules = management.gate.rules.load_full();
    let mut policies = rules.policies.iter();
    let policy = policies.find(|(other, _)| other.as_str() == name);
    let counted = policy.and_then(|(_, policy)| policy.counters());
    let counted = counted.ok_or_else(|| refuse(request, &ApiError::NotFound(NO_POLICY)))?;
    let result = act(counted).await;
    result.map_err(|fault| {
        let mut response = fail(request, &fault);
        LogFields::update(&mut response, |fields| {
            fields.policy = PolicyName::parse(name).ok();
        });
        response
    })
}
