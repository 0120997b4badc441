//! The body of a request for a token: empty, or a JSON object.

use std::{fmt, marker::PhantomData, time::Duration};

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderMap, HeaderName},
    web,
};
use policies::{Purpose, WorkspaceId};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use utoipa::ToSchema;

use super::error::ApiError;
use crate::gate::explain::Id;

const X_WORKSPACE_ID: HeaderName = HeaderName::from_static("x-workspace-id");

#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// The maximum size in bytes.
    pub bytes: usize,
    /// How long the body may take to arrive.
    pub time: Duration,
}

/// What the upload is for. All fields are optional.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TokenRequest)]
pub(crate) struct Body {
    /// The id of the workspace that the upload is for. Default: `X-Workspace-Id`, or the user's only workspace.
    #[schema(value_type = Option<Id>)]
    pub(super) workspace: Option<WorkspaceId>,
    /// The purpose of the upload, for example `avatar`.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255)]
    pub(super) purpose: Option<Purpose>,
    /// The file to upload.
    #[schema(value_type = Option<File>)]
    pub(super) file: Option<Object<File>>,
}

/// A file as the client declares it. The gate does not see its content.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct File {
    /// The file name.
    pub(super) name: Option<String>,
    /// The media type, for example `image/png`.
    pub(super) mime_type: Option<String>,
    /// The size in bytes.
    #[schema(format = "uint64")]
    pub(super) size: Option<u64>,
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

pub(super) async fn read(
    request: &HttpRequest,
    payload: web::Payload,
    limits: BodyLimits,
) -> Result<Body, ApiError> {
    if !has_body(request) {
        return Ok(Body::default());
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
        return Ok(Body::default());
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

pub(super) fn workspace_header(headers: &HeaderMap) -> Result<Option<WorkspaceId>, ApiError> {
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
