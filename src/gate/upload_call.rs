//! What a client asks for when it creates an upload, and the call to Imgwire that follows from it.

use std::sync::Arc;

use policies::{Facts, Purpose, Scalar, UploadRequest};
use serde_json::{Map, Value};

use super::rules::UploadRoute;
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

impl Upload {
    /// What the client asks Imgwire for. The members are in the order of their names.
    pub(super) fn parameters(&self, client_metadata: &[String]) -> Map<String, Value> {
        let Self {
            request,
            hash_sha256,
            metadata,
            ..
        } = self;
        let file = request.file.as_ref();
        let text = |text: Option<&str>| text.map(Value::from);
        let metadata: Map<_, _> = metadata
            .iter()
            .filter(|(key, _)| client_metadata.contains(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let members = [
            (
                "file_name",
                text(file.and_then(|file| file.name.as_deref())),
            ),
            (
                "mime_type",
                text(file.and_then(|file| file.mime_type.as_deref())),
            ),
            (
                "content_length",
                file.and_then(|file| file.size).map(Value::from),
            ),
            ("hash_sha256", text(hash_sha256.as_deref())),
            (
                "purpose",
                text(request.purpose.as_ref().map(Purpose::as_str)),
            ),
            ("custom_metadata", Some(Value::Object(metadata))),
        ];
        let members = members.into_iter();
        members
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect()
    }

    /// The body of the call to Imgwire: the parameters, the server's own metadata, and the key.
    pub(super) fn call(
        &self,
        uploads: &UploadRoute,
        key: &str,
        facts: &Facts,
        context: &TraceContext,
    ) -> Arc<str> {
        let mut body = self.parameters(&uploads.client_metadata);
        if let Some(Value::Object(metadata)) = body.get_mut("custom_metadata") {
            for (name, expression) in &uploads.metadata {
                match expression.scalar(&self.request, facts) {
                    Ok(value) => _ = metadata.insert(name.clone(), json(value)),
                    Err(reason) => tracing::warn!(
                        request_id = context.request_id.as_str(),
                        route = self.request.route.as_str(),
                        key = name,
                        %reason,
                        "metadata left out"
                    ),
                }
            }
        }
        body.insert("idempotency_key".to_owned(), key.into());
        Value::Object(body).to_string().into()
    }
}

fn json(value: Scalar) -> Value {
    match value {
        Scalar::String(text) => text.into(),
        Scalar::Int(number) => number.into(),
        Scalar::UInt(number) => number.into(),
        Scalar::Float(number) => number.into(),
        Scalar::Bool(flag) => flag.into(),
    }
}
