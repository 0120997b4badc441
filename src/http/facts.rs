//! Reads from a request what policies and Imgwire need to know about it.

use actix_web::HttpRequest;
use policies::{DeclaredFile, UploadRequest};

use super::{
    body::{self, Body},
    context::worker,
    error::ApiError,
};
use crate::{
    gate::rules::Route,
    identities::{AppliedLimits, RequestCredentials},
    imgwire::TraceContext,
    telemetry::{RequestId, trace_state},
};

pub(super) fn upload_request(
    request: &HttpRequest,
    route: &Route,
    body: Body,
    limits: AppliedLimits,
) -> Result<UploadRequest, ApiError> {
    let gate = &worker(request).gate;
    Ok(UploadRequest {
        route: route.path.clone(),
        workspace: match body.workspace {
            Some(workspace) => Some(workspace),
            None => body::workspace_header(request.headers())?,
        },
        purpose: body.purpose.or_else(|| route.purpose.clone()),
        file: body.file.map(|body::Object(file)| DeclaredFile {
            name: file.name,
            mime_type: file.mime_type,
            size: file.size,
        }),
        ip: gate.client_address.of(request),
        credentials: Box::new(RequestCredentials::new(
            request.clone(),
            route.identities.clone(),
            limits,
        )),
    })
}

/// The request id, and the W3C trace context if it is valid.
pub(super) fn trace_context(request: &HttpRequest) -> TraceContext {
    let headers = request.headers();
    let parent = headers.get("traceparent").filter(|value| {
        let bytes = value.as_bytes();
        bytes.len() >= 55
            && bytes.len() <= 128
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_hexdigit() || *byte == b'-')
    });
    TraceContext {
        request_id: RequestId::of(request),
        parent: parent.cloned(),
        state: parent.and_then(|_| trace_state(headers)),
    }
}
