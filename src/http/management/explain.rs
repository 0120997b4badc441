//! `POST /explain`: explains what the policies decide about a described request.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{Management, read};
use crate::{
    gate::explain::DescribedRequest,
    http::{
        context::Gate,
        error::{ApiError, refuse},
        error_responses::ManagementErrors,
        explanation::Explanation,
    },
};

/// Explains what each policy decides about a described request. Consumes nothing.
#[utoipa::path(
    post,
    path = "/explain",
    tag = "management",
    operation_id = "explain",
    request_body = DescribedRequest,
    security(("bearer" = []), ()),
    responses((status = 200, description = "The explanation", body = Explanation),
        ManagementErrors)
)]
pub(crate) async fn explain(
    request: HttpRequest,
    body: web::Bytes,
    management: web::Data<Management>,
) -> HttpResponse {
    explained(&request, &management.gate, &body).await
}

/// Responds to a described request in `body`.
pub(crate) async fn explained(request: &HttpRequest, gate: &Gate, body: &[u8]) -> HttpResponse {
    let described: DescribedRequest = match read(request, body) {
        Ok(described) => described,
        Err(error) => return refuse(request, &error),
    };
    let rules = gate.rules.load_full();
    match crate::gate::explain::explain(&rules, &*gate.clock, described).await {
        Ok(explained) => HttpResponse::Ok().json(Explanation::from(explained)),
        Err(_) => refuse(request, &ApiError::NotFound),
    }
}
