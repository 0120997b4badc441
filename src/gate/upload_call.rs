//! What a client asks for when it creates an upload, and the call to Imgwire that follows from it.

use std::sync::Arc;

use policies::{Facts, Purpose, Scalar, UploadRequest};
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::{Map, Value};

use super::{idempotency::digest_of, rules::UploadRoute};
use crate::imgwire::TraceContext;

/// What a client asks for.
pub struct Upload {
    /// What the chain sees.
    pub request: UploadRequest,
    pub hash_sha256: Option<String>,
    pub idempotency_key: Option<String>,
    /// Strings, numbers and booleans, as the client sent them.
    pub metadata: Map<String, Value>,
}

/// The body of a call to Imgwire. The members are in the order of their names, so that equal parameters have equal texts.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    content_length: Option<u64>,
    custom_metadata: Metadata<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash_sha256: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mime_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purpose: Option<&'a str>,
}

struct Metadata<'a> {
    of_client: &'a Map<String, Value>,
    /// The keys that the client may set. None of them is a key of the server.
    allowed: &'a [String],
    of_server: Vec<(&'a str, Scalar)>,
}

impl Serialize for Metadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let of_client = self.of_client.iter();
        let of_client = of_client.filter(|(key, _)| self.allowed.contains(key));
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in of_client {
            map.serialize_entry(key, value)?;
        }
        for (key, value) in &self.of_server {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl Upload {
    /// A digest of what the client asks Imgwire for.
    pub(super) fn parameters(&self, uploads: &UploadRoute) -> [u8; 32] {
        digest_of(&self.body(uploads, Vec::new(), None))
    }

    /// The body of the call to Imgwire: the parameters, the server's own metadata, and the key.
    pub(super) fn call(
        &self,
        uploads: &UploadRoute,
        key: &str,
        facts: &Facts,
        context: &TraceContext,
    ) -> Arc<str> {
        let mut metadata = Vec::with_capacity(uploads.metadata.len());
        for (name, expression) in &uploads.metadata {
            match expression.scalar(&self.request, facts) {
                Ok(value) => metadata.push((name.as_str(), value)),
                Err(reason) => tracing::warn!(
                    request_id = context.request_id.as_str(),
                    route = self.request.route.as_str(),
                    key = name,
                    %reason,
                    "metadata left out"
                ),
            }
        }
        self.body(uploads, metadata, Some(key)).into()
    }

    fn body(
        &self,
        uploads: &UploadRoute,
        of_server: Vec<(&str, Scalar)>,
        key: Option<&str>,
    ) -> String {
        let file = self.request.file.as_ref();
        let body = Body {
            content_length: file.and_then(|file| file.size),
            custom_metadata: Metadata {
                of_client: &self.metadata,
                allowed: &uploads.client_metadata,
                of_server,
            },
            file_name: file.and_then(|file| file.name.as_deref()),
            hash_sha256: self.hash_sha256.as_deref(),
            idempotency_key: key,
            mime_type: file.and_then(|file| file.mime_type.as_deref()),
            purpose: self.request.purpose.as_ref().map(Purpose::as_str),
        };
        serde_json::to_string(&body).expect("the keys of all maps are strings")
    }
}
