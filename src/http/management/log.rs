//! `/log`: which lines the gate writes.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::read;
use crate::{
    http::{
        error::{ApiError, refuse},
        refusals::ManagementRefusals,
    },
    telemetry::{self, RequestId},
};

/// Which lines are written, by level and target.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogFilter {
    /// Directives as in `RUST_LOG`, for example `info,imgwire_gate=debug`. Lines with the target `decision` are always
    /// written.
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
pub(crate) async fn show() -> HttpResponse {
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
pub(crate) async fn set(request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let LogFilter { filter } = match read(&request, &body) {
        Ok(wanted) => wanted,
        Err(error) => return refuse(&request, &error),
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
