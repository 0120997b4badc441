//! `/quota/<policy>`: what is counted under a key, and how it is given back.

use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use policies::{Fault, PersistentCounters};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Management;
use crate::{
    http::{
        error::{ApiError, refuse},
        refusals::ManagementRefusals,
    },
    telemetry::RequestId,
};

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
    let counted = counted.ok_or_else(|| refuse(request, &ApiError::NotFound))?;
    let done = act(counted).await;
    done.map_err(|fault| {
        let id = RequestId::of(request);
        tracing::error!(request_id = id.as_str(), policy = name, error = %fault, "a store cannot tell");
        refuse(request, &ApiError::Internal)
    })
}
