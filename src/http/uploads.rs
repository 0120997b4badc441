//! `POST <route>/api/v1/images/standard_upload`: creates an upload if all policies allow it.

use std::{mem, sync::Arc};

use actix_web::{HttpRequest, HttpResponse, web};
use policies::WorkspaceId;
use serde_json::Value;
use tracing::Instrument as _;
use utoipa::ToSchema;

use super::{
    answer::decided,
    context::{LogOnDisconnect, enter, worker},
    decision,
    error::{ApiError, Body as Error, NO_ROUTE, PublicErrors, fail, refuse},
    images::{ImageBody, json_text},
    token_request::{Declared, read_body, trace_context, upload_request},
    upload_body::UploadBody,
};
use crate::{
    gate::{
        issue::run_to_completion,
        outcome::{Report, Success},
        route_paths::Target,
        rules::{Action, Route, UploadRoute},
        upload::Creation,
    },
    identities::AppliedLimits,
    imgwire::CreatedUpload,
    outbound::in_flight::with_place,
    telemetry::RootSpan,
};

/// An image without bytes, and the URL to send them to.
#[derive(ToSchema)]
#[schema(as = StandardUploadResponse)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) struct Answer {
    image: ImageBody,
    /// PUT the bytes to it, with their `Content-Type`.
    upload_url: String,
}

/// Creates an upload if all policies of the route allow it.
#[utoipa::path(
    post,
    path = "/imgwire/{workspace}/api/v1/images/standard_upload",
    tag = "public",
    operation_id = "create_upload",
    request_body(content = UploadBody, content_type = "application/json"),
    security(("bearer" = []), ("session" = []), ()),
    responses(
        (status = 200, description = "The image, and where to upload its bytes", body = Answer,
            headers(("RateLimit" = String), ("RateLimit-Policy" = String), ("X-Request-Id" = String))),
        (status = 413, description = "The body is too large", body = Error),
        (status = 415, description = "The body is not JSON", body = Error),
        (status = 429, description = "A limit is reached", body = Error, headers(("Retry-After" = u64))),
        PublicErrors
    )
)]
pub(crate) async fn create(
    request: HttpRequest,
    payload: web::Payload,
    route: Arc<Route>,
    workspace: Option<WorkspaceId>,
) -> HttpResponse {
    let worker = worker(&request).clone();
    let gate = &worker.gate;
    let log_on_disconnect = LogOnDisconnect(&request);
    let body = read_body::<UploadBody>(&request, payload, gate.body_limits).await;
    mem::forget(log_on_disconnect);
    let body = match body {
        Ok(Some(body)) => body,
        Ok(None) => {
            let reason = "the request has no body; send a JSON object with \"file_name\"";
            return refuse(&request, &ApiError::BadRequest(reason.into()));
        }
        Err(error) => return refuse(&request, &error),
    };
    // Counts the request as running only now, so that clients that send slowly do not use up `max_in_flight`.
    let Some(running) = enter(gate) else {
        return refuse(&request, &ApiError::Overloaded);
    };
    let declared = Declared {
        workspace,
        purpose: body.purpose(),
        file: Some(body.file()),
    };
    let upload = match upload_request(&request, &route, declared, AppliedLimits::Failures) {
        Ok(upload) => body.into_upload(upload),
        Err(error) => return refuse(&request, &error),
    };
    RootSpan::record_route("POST", route.paths.name(&Target::CreateUpload).as_str());
    let target = route.clone();
    let context = trace_context(&request);
    let in_flight = running.in_flight();
    // If the client disconnects, the handler is dropped, but records and reservations must still be settled.
    let work = async move {
        let gate = &worker.gate;
        let Action::Upload(uploads) = &target.action else {
            return None;
        };
        let creation = Creation {
            route: &target,
            uploads,
            client: &worker.client,
            clock: &gate.clock,
            rules: &gate.rules,
            context: &context,
            upload: &upload,
        };
        let report = creation.run().await;
        decision::record(&gate.metrics, &context.request_id, &upload.request, &report);
        drop(running);
        Some(report)
    };
    let work = with_place(in_flight, work);
    match run_to_completion(work.in_current_span()).await {
        Ok(Some(report)) => answer(&request, &route, &report),
        Ok(None) => refuse(&request, &ApiError::NotFound(NO_ROUTE)),
        Err(_) => fail(&request, &"the handler panicked"),
    }
}

fn answer(request: &HttpRequest, route: &Route, report: &Report) -> HttpResponse {
    decided(request, route, report, |success| {
        match (success, &route.action) {
            (Success::Created(upload) | Success::Repeated(upload), Action::Upload(uploads)) => {
                describe(upload, uploads)
            }
            _ => fail(request, &"the route issues tokens"),
        }
    })
}

fn describe(upload: &CreatedUpload, uploads: &UploadRoute) -> HttpResponse {
    let image = upload.image.for_client(|key| uploads.shows(key));
    let url = Value::from(upload.upload_url.as_str());
    json_text(format!("{{\"image\":{image},\"upload_url\":{url}}}"))
}
