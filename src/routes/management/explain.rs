//! `POST /explain`: what the policies say of a described request.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{Management, admitted};
use crate::{
    error::ApiError,
    explain::{DescribedRequest, Explanation},
    openapi::ManagementRefusals,
    routes::{
        body::{Object, is_json},
        refuse,
    },
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
