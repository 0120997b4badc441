//! `POST /explain`: what the policies say of a described request.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{Management, read};
use crate::{
    gate::explain::{DescribedRequest, Explanation},
    http::{error::ApiError, openapi::ManagementRefusals, refuse},
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
    let described: DescribedRequest = match read(&request, &body) {
        Ok(described) => described,
        Err(error) => return refuse(&request, &error),
    };
    match crate::gate::explain::explain(&management.gate, described).await {
        Ok(explanation) => HttpResponse::Ok().json(explanation),
        Err(_) => refuse(&request, &ApiError::NotFound),
    }
}
