//! A request for a token: its body, which is empty or a JSON object, and what policies and Imgwire need to know about it.

use std::{fmt, marker::PhantomData};

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderMap, HeaderName},
    web,
};
use policies::{DeclaredFile, Purpose, UploadRequest, WorkspaceId};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use utoipa::ToSchema;

use super::{
    context::{BodyLimits, worker},
    error::ApiError,
};
use crate::{
    gate::{explain::Id, rules::Route},
    identities::{AppliedLimits, RequestCredentials},
    imgwire::TraceContext,
    telemetry::{RequestId, trace_state},
};

const X_WORKSPACE_ID: HeaderName = HeaderName::from_static("x-workspace-id");

/// What the upload is for. All fields are optional.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenRequest {
    /// The id of the workspace that the upload is for. Default: `X-Workspace-Id`, or the user's only workspace.
    #[schema(value_type = Option<Id>)]
    workspace: Option<WorkspaceId>,
    /// The purpose of the upload, for example `avatar`.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255)]
    purpose: Option<Purpose>,
    /// The file to upload.
    #[schema(value_type = Option<File>)]
    file: Option<Object<File>>,
}

/// A file as the client declares it. The gate does not see its content.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct File {
    /// The file name.
    name: Option<String>,
    /// The media type, for example `image/png`.
    mime_type: Option<String>,
    /// The size in bytes.
    #[schema(format = "uint64")]
    size: Option<u64>,
}

/// Deserializes only from a JSON object; serde would also accept an array.
pub(crate) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

pub(super) async fn read_body(
    request: &HttpRequest,
    payload: web::Payload,
    limits: BodyLimits,
) -> Result<TokenRequest, ApiError> {
    if !has_body(request) {
        return Ok(TokenRequest::default());
    }
    let headers = request.headers();
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limits.bytes as u64) {
        return Err(ApiError::BodyTooLarge);
    }
    let reading = payload.to_bytes_limited(limits.bytes);
    let bytes = match tokio::time::timeout(limits.time, reading).await {
        Ok(Ok(Ok(bytes))) => bytes,
        Ok(Err(_)) => return Err(ApiError::BodyTooLarge),
        Ok(Ok(Err(_))) | Err(_) => return Err(ApiError::BadRequest),
    };
    if bytes.is_empty() {
        return Ok(TokenRequest::default());
    }
    if !is_json(headers) {
        return Err(ApiError::UnsupportedMediaType);
    }
    let Object(body) = serde_json::from_slice(&bytes).map_err(|_| ApiError::BadRequest)?;
    Ok(body)
}

/// Whether the request has a body, by its framing (RFC 9112, 6.3).
fn has_body(request: &HttpRequest) -> bool {
    let headers = request.headers();
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers
            .get(header::CONTENT_LENGTH)
            .is_some_and(|length| length.as_bytes() != b"0")
}

/// Whether `Content-Type` and `Content-Encoding` declare plain JSON.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    let media_type = text(header::CONTENT_TYPE).and_then(|text| text.split(';').next());
    let encoding = text(header::CONTENT_ENCODING).unwrap_or("identity");
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
        && encoding.trim().eq_ignore_ascii_case("identity")
}

fn workspace_header(headers: &HeaderMap) -> Result<Option<WorkspaceId>, ApiError> {
    let mut values = headers.get_all(X_WORKSPACE_ID);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let id = value
        .to_str()
        .ok()
        .and_then(|text| WorkspaceId::parse(text).ok());
    match (id, values.next()) {
        (Some(id), None) => Ok(Some(id)),
        _ => Err(ApiError::BadRequest),
    }
}

pub(super) fn upload_request(
    request: &HttpRequest,
    route: &Route,
    body: TokenRequest,
    limits: AppliedLimits,
) -> Result<UploadRequest, ApiError> {
    let gate = &worker(request).gate;
    Ok(UploadRequest {
        route: route.path.clone(),
        workspace: match body.workspace {
            Some(workspace) => Some(workspace),
            None => workspace_header(request.headers())?,
        },
        purpose: body.purpose.or_else(|| route.purpose.clone()),
        file: body.file.map(|Object(file)| DeclaredFile {
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
