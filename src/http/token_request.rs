//! A request for a token: its body, which is empty or a JSON object, and what policies and Imgwire need to know about it.

use std::{fmt, marker::PhantomData};

use actix_web::{
    Error, HttpRequest,
    error::PayloadError,
    http::header::{self, HeaderMap, HeaderName},
    web,
};
use policies::{DeclaredFile, Purpose, UploadRequest, WorkspaceId, excerpt};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
use utoipa::ToSchema;

use super::{
    context::{BodyLimits, worker},
    error::ApiError,
    json_error,
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

/// What a request says about an upload.
#[derive(Default)]
pub(super) struct Declared {
    /// The workspace in the path or in the body.
    pub(super) workspace: Option<WorkspaceId>,
    pub(super) purpose: Option<Purpose>,
    pub(super) file: Option<DeclaredFile>,
}

impl TokenRequest {
    pub(super) fn declared(self) -> Declared {
        Declared {
            workspace: self.workspace,
            purpose: self.purpose,
            file: self.file.map(|Object(file)| DeclaredFile {
                name: file.name,
                mime_type: file.mime_type,
                size: file.size,
            }),
        }
    }
}

impl Declared {
    /// The same for the workspace in the path, if there is one.
    pub(super) fn in_workspace(self, workspace: Option<WorkspaceId>) -> Self {
        let workspace = workspace.or(self.workspace);
        Self { workspace, ..self }
    }
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

/// Reads a JSON object. `None` if the request has no body.
pub(super) async fn read_body<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: web::Payload,
    limits: BodyLimits,
) -> Result<Option<T>, ApiError> {
    if !has_body(request) {
        return Ok(None);
    }
    let headers = request.headers();
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limits.bytes as u64) {
        return Err(ApiError::BodyTooLarge(limits.bytes));
    }
    let reading = payload.to_bytes_limited(limits.bytes);
    let bytes = match tokio::time::timeout(limits.time, reading).await {
        Ok(Ok(Ok(bytes))) => bytes,
        Ok(Err(_)) => return Err(ApiError::BodyTooLarge(limits.bytes)),
        Ok(Ok(Err(error))) => return Err(ApiError::BadRequest(unread_body(&error).into())),
        Err(_) => {
            let seconds = limits.time.as_secs_f64();
            let reason = format!("the body did not arrive within {seconds} seconds");
            return Err(ApiError::BadRequest(reason.into()));
        }
    };
    if bytes.is_empty() {
        return Ok(None);
    }
    read_json(headers, &bytes).map(Some)
}

/// Reads a JSON object.
pub(crate) fn read_json<'de, T: Deserialize<'de>>(
    headers: &HeaderMap,
    body: &'de [u8],
) -> Result<T, ApiError> {
    check_json(headers)?;
    match serde_json::from_slice(body) {
        Ok(Object(read)) => Ok(read),
        Err(error) => Err(ApiError::BadRequest(
            json_error::explain::<Object<T>>(body, &error).into(),
        )),
    }
}

fn unread_body(error: &Error) -> &'static str {
    match error.as_error() {
        // actix-http does not tell one from the other.
        Some(PayloadError::Incomplete(_) | PayloadError::EncodingCorrupted) => {
            "the body ends too early, or its chunks are malformed"
        }
        _ => "the body could not be read",
    }
}

/// Whether the request has a body, by its framing (RFC 9112, 6.3).
fn has_body(request: &HttpRequest) -> bool {
    let headers = request.headers();
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers
            .get(header::CONTENT_LENGTH)
            .is_some_and(|length| length.as_bytes() != b"0")
}

/// Checks that `Content-Type` and `Content-Encoding` declare plain JSON.
fn check_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    let declared = text(header::CONTENT_TYPE);
    let media_type = declared.and_then(|text| text.split(';').next());
    let encoding = text(header::CONTENT_ENCODING).unwrap_or("identity");
    let found =
        if !media_type.is_some_and(|text| text.trim().eq_ignore_ascii_case("application/json")) {
            match declared {
                None => "the body has no Content-Type".to_owned(),
                Some(declared) => format!("the Content-Type is \"{}\"", excerpt(declared)),
            }
        } else if !encoding.trim().eq_ignore_ascii_case("identity") {
            format!("the Content-Encoding is \"{}\"", excerpt(encoding))
        } else {
            return Ok(());
        };
    Err(ApiError::UnsupportedMediaType(found))
}

fn workspace_header(headers: &HeaderMap) -> Result<Option<WorkspaceId>, ApiError> {
    let mut values = headers.get_all(X_WORKSPACE_ID);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(ApiError::BadRequest(
            "the header X-Workspace-Id occurs twice".into(),
        ));
    }
    let invalid = |reason: &dyn fmt::Display| {
        let reason = format!("the header X-Workspace-Id {reason}");
        ApiError::BadRequest(reason.into())
    };
    let text = value.to_str().map_err(|_| invalid(&"is not ASCII"))?;
    let id = WorkspaceId::parse(text).map_err(|error| invalid(&error))?;
    Ok(Some(id))
}

pub(super) fn upload_request(
    request: &HttpRequest,
    route: &Route,
    declared: Declared,
    limits: AppliedLimits,
) -> Result<UploadRequest, ApiError> {
    let gate = &worker(request).gate;
    Ok(UploadRequest {
        route: route.path.clone(),
        workspace: match declared.workspace {
            Some(workspace) => Some(workspace),
            None => workspace_header(request.headers())?,
        },
        purpose: declared.purpose.or_else(|| route.purpose.clone()),
        file: declared.file,
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
