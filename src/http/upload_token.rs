//! `POST <route>`: issues a token if all policies allow it.

use std::{mem, sync::Arc};

use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use serde::Serialize;
use tracing::Instrument as _;
use utoipa::ToSchema;

use super::{
    answer::decided,
    context::{LogOnDisconnect, enter, worker},
    decision,
    error::{ApiError, Body as Error, PublicErrors, fail, refuse},
    token_request::{TokenRequest, read_body, trace_context, upload_request},
};
use crate::{
    gate::{
        issue::{issue, run_to_completion},
        outcome::{Report, Success},
        rules::Route,
    },
    identities::AppliedLimits,
    outbound::in_flight::with_place,
    telemetry::RootSpan,
};

/// An upload token of Imgwire.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UploadToken)]
pub(crate) struct Answer<'a> {
    /// The token. It is valid for one upload.
    upload_token: &'a str,
    /// When the token expires, if Imgwire returned it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

/// Creates an upload token if all policies of the route allow it.
#[utoipa::path(
    post,
    path = "/api/imgwire/upload-token",
    tag = "public",
    operation_id = "create_token",
    request_body(
        content = TokenRequest,
        description = "What the upload is for. The body may be empty",
        content_type = "application/json"
    ),
    params(("X-Workspace-Id" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$", description = "The id of the workspace that the upload is for, if the body has none")),
    security(("bearer" = []), ("session" = []), ()),
    responses(
        (status = 200, description = "The token", body = Answer,
            headers(("RateLimit" = String), ("RateLimit-Policy" = String), ("X-Request-Id" = String))),
        (status = 413, description = "The body is too large", body = Error),
        (status = 415, description = "The body is not JSON", body = Error),
        (status = 429, description = "A limit is reached", body = Error, headers(("Retry-After" = u64))),
        PublicErrors
    )
)]
pub(crate) async fn post(
    request: HttpRequest,
    payload: web::Payload,
    route: Arc<Route>,
) -> HttpResponse {
    let worker = worker(&request).clone();
    let gate = &worker.gate;
    let log_on_disconnect = LogOnDisconnect(&request);
    let body = read_body::<TokenRequest>(&request, payload, gate.body_limits).await;
    mem::forget(log_on_disconnect);
    let declared = match body {
        Ok(body) => body.map(TokenRequest::declared).unwrap_or_default(),
        Err(error) => return refuse(&request, &error),
    };
    // Counts the request as running only now, so that clients that send slowly do not use up `max_in_flight`.
    let Some(running) = enter(gate) else {
        return refuse(&request, &ApiError::Overloaded);
    };
    let upload = match upload_request(&request, &route, declared, AppliedLimits::Failures) {
        Ok(upload) => upload,
        Err(error) => return refuse(&request, &error),
    };
    RootSpan::record_route("POST", route.path.as_str());
    let target = route.clone();
    let context = trace_context(&request);
    let in_flight = running.in_flight();
    // If the client disconnects, the handler is dropped, but reservations must still be settled.
    let work = async move {
        let gate = &worker.gate;
        let report = issue(&target, &worker.client, &*gate.clock, &upload, &context).await;
        decision::record(&gate.metrics, &context.request_id, &upload, &report);
        drop(running);
        report
    };
    let work = with_place(in_flight, work);
    match run_to_completion(work.in_current_span()).await {
        Ok(report) => answer(&request, &route, &report),
        Err(_) => fail(&request, &"the handler panicked"),
    }
}

fn answer(request: &HttpRequest, route: &Route, report: &Report) -> HttpResponse {
    decided(request, route, report, |success| match success {
        Success::Issued(token) => HttpResponse::Ok().json(Answer {
            upload_token: &token.token,
            expires_at: token.expires_at,
        }),
        Success::Created(_) | Success::Repeated(_) => fail(request, &"this is no upload route"),
    })
}
