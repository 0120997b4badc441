//! `/quota/<policy>`: shows and resets the counter of a key. What a policy of kind `storage` counts, it only shows.

use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use policies::{Fault, Policy, PolicyName, StorageUsed};
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

/// The storage that is held under a key.
#[derive(Serialize, ToSchema)]
pub(crate) struct Held<'a> {
    /// The name of the policy.
    policy: &'a str,
    /// The values of `per`, joined by `/`.
    key: &'a str,
    /// The bytes of all images. Those of an open upload are the declared ones.
    bytes: u64,
    /// The number of images, with the open uploads.
    images: u64,
    /// The number of open uploads.
    open: u64,
}

/// The usage of a quota, or of the storage, under a key.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Usage<'a> {
    /// Of a quota.
    Quota(Used<'a>),
    /// Of a policy of kind `storage`.
    Storage(Held<'a>),
}

/// Returns the usage of a quota, or of the storage, under a key.
#[utoipa::path(
    get,
    path = "/quota/{policy}",
    tag = "management",
    operation_id = "show_quota",
    params(("policy" = String, Path, description = "The name of a policy that counts units, for example of kind `quota`"), ("key" = String, Query, description = "The values of `per`, joined by `/`, for example `ws_1/user_1`")),
    security(("bearer" = []), ()),
    responses((status = 200, description = "The usage", body = Usage),
        ManagementErrors)
)]
pub(crate) async fn show(
    request: HttpRequest,
    policy: web::Path<String>,
    key: web::Query<Key>,
    management: web::Data<Management>,
) -> HttpResponse {
    let (policy, key) = (policy.as_str(), key.key.as_str());
    let usage = with_policy(&request, &management, policy, async |found| {
        if let Some(counted) = found.counters() {
            let (used, window) = counted.used(key).await?;
            return Ok(Usage::Quota(Used {
                policy,
                key,
                used,
                window_start: window.start,
                resets_at: window.end,
            }));
        }
        let Some(counted) = found.storage() else {
            return Err(NO_COUNTERS);
        };
        let StorageUsed {
            bytes,
            images,
            open,
        } = counted.used(key).await?;
        Ok(Usage::Storage(Held {
            policy,
            key,
            bytes,
            images,
            open,
        }))
    });
    match usage.await {
        Ok(usage) => HttpResponse::Ok().json(usage),
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
    let given_back = with_policy(&request, &management, &policy, async |found| {
        match (found.counters(), found.storage()) {
            (Some(counted), _) => Ok(counted.give_back(&key.key).await?),
            (None, Some(_)) => Err(Refusal::NotFound(FREED_BY_DELETING)),
            (None, None) => Err(NO_COUNTERS),
        }
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

/// Why there is no answer.
enum Refusal {
    /// Says what does not exist.
    NotFound(&'static str),
    Failed(Fault),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

const NO_COUNTERS: Refusal =
    Refusal::NotFound("there is no such policy with counters that persist");

const FREED_BY_DELETING: &str = "the policy counts storage, which is freed by deleting images";

async fn with_policy<T>(
    request: &HttpRequest,
    management: &Management,
    name: &str,
    act: impl AsyncFnOnce(&dyn Policy) -> Result<T, Refusal>,
) -> Result<T, HttpResponse> {
    let rules = management.gate.rules.load_full();
    let mut policies = rules.policies.iter();
    let policy = policies.find(|(other, _)| other.as_str() == name);
    let result = match policy {
        Some((_, policy)) => act(&**policy).await,
        None => Err(NO_COUNTERS),
    };
    result.map_err(|refusal| match refusal {
        Refusal::NotFound(what) => refuse(request, &ApiError::NotFound(what)),
        Refusal::Failed(fault) => {
            let mut response = fail(request, &fault);
            LogFields::update(&mut response, |fields| {
                fields.policy = PolicyName::parse(name).ok();
            });
            response
        }
    })
}
