//! `POST /explain`: what the policies say of a described request.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{Management, read};
use crate::{
    gate::explain::DescribedRequest,
    http::{
        context::Gate,
        error::{ApiError, refuse},
        explanation::Explanation,
        refusals::ManagementRefusals,
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
    explained(&request, &management.gate, &body).await
}

/// The response to `body`, which describes a request.
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
