//! `/log`: the filter of log lines.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::read;
use crate::{
    http::error::{ApiError, ManagementErrors, refuse},
    telemetry::{self, RequestId},
};

/// The filter of log lines.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogFilter {
    /// Levels by target in the syntax of `RUST_LOG`, for example `info,imgwire_gate=debug`. Lines with the target
    /// `decision` are always written.
    filter: String,
}

/// Returns the filter of log lines.
#[utoipa::path(
    get,
    path = "/log",
    tag = "management",
    operation_id = "show_log_filter",
    security(("bearer" = []), ()),
    responses((status = 200, description = "The filter", body = LogFilter),
        ManagementErrors)
)]
pub(crate) async fn show() -> HttpResponse {
    let filter = telemetry::log_filter();
    HttpResponse::Ok().json(LogFilter { filter })
}

/// Changes the filter of log lines, until the next start.
#[utoipa::path(
    put,
    path = "/log",
    tag = "management",
    operation_id = "set_log_filter",
    request_body = LogFilter,
    security(("bearer" = []), ()),
    responses((status = 204, description = "The filter is changed"),
        ManagementErrors)
)]
pub(crate) async fn set(request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let LogFilter { filter } = match read(&request, &body) {
        Ok(wanted) => wanted,
        Err(error) => return refuse(&request, &error),
    };
    let id = RequestId::of(&request);
    match telemetry::set_log_filter(&filter) {
        Ok(()) => {
            tracing::warn!(request_id = id.as_str(), filter, "log filter changed");
            HttpResponse::NoContent().finish()
        }
        Err(error) => {
            let reason = format!("the filter is invalid: {error}");
            refuse(&request, &ApiError::BadRequest(reason.into()))
        }
    }
}
