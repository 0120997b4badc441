//! `POST /explain`: what the policies say of a described request.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{Management, read};
use crate::{
    gate::explain::{DescribedRequest, Explanation},
    http::{Gate, error::ApiError, openapi::ManagementRefusals, refuse},
};

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
    explained(&request, &management.gate, &body).await
}

/// The response to `body`, which describes a request.
pub(crate) async fn explained(request: &HttpRequest, gate: &Gate, body: &[u8]) -> HttpResponse {
    let described: DescribedRequest = match read(request, body) {
        Ok(described) => described,
        Err(error) => return refuse(request, &error),
    };
    match crate::gate::explain::explain(gate, described).await {
        Ok(explanation) => HttpResponse::Ok().json(explanation),
        Err(_) => refuse(request, &ApiError::NotFound),
    }
}
