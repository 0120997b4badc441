//! The body of a request for an upload.

use serde_json::{Map, Value};

use super::{
    errors::{ApiError, Problem},
    image_type,
};

/// The strings of the body, and how many characters each may have.
const TEXTS: [(&str, usize); 4] = [
    ("file_name", usize::MAX),
    ("hash_sha256", 255),
    ("idempotency_key", 255),
    ("purpose", 255),
];

#[derive(Clone, Debug)]
pub(super) struct UploadRequest {
    pub(super) file_name: String,
    pub(super) mime_type: Option<String>,
    pub(super) content_length: Option<u64>,
    pub(super) hash_sha256: Option<String>,
    pub(super) idempotency_key: Option<String>,
    pub(super) purpose: Option<String>,
    pub(super) custom_metadata: Map<String, Value>,
}

impl UploadRequest {
    /// Unknown fields are ignored.
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let problem = |name: &str, message, kind| Problem::new("body", name, message, kind);
        let Ok(Value::Object(body)) = serde_json::from_slice(body) else {
            let problem = problem("", "JSON decode error", "json_invalid");
            return Err(ApiError::invalid(&[problem]));
        };
        let value = |name: &str| body.get(name).filter(|value| !value.is_null());
        let text = |name: &str| Some(value(name)?.as_str()?.to_owned());
        let mut problems = Vec::new();
        for (name, longest) in TEXTS {
            match value(name).map(|value| value.as_str().map(|text| text.chars().count())) {
                None if name == "file_name" => {
                    problems.push(problem(name, "Field required", "missing"));
                }
                Some(None) => {
                    let message = "Input should be a valid string";
                    problems.push(problem(name, message, "string_type"));
                }
                Some(Some(0)) => {
                    let message = "String should have at least 1 character";
                    problems.push(problem(name, message, "string_too_short"));
                }
                Some(Some(length)) if length > longest => {
                    let message = "String should have at most 255 characters";
                    problems.push(problem(name, message, "string_too_long"));
                }
                None | Some(Some(_)) => {}
            }
        }
        if let Some(mime_type) = value("mime_type")
            && !mime_type.as_str().is_some_and(image_type::is_supported)
        {
            let message = "Input should be a supported MIME type";
            problems.push(problem("mime_type", message, "enum"));
        }
        if value("content_length").is_some_and(|length| length.as_u64().is_none()) {
            let message = "Input should be an integer of at least 0";
            problems.push(problem("content_length", message, "greater_than_equal"));
        }
        let metadata = value("custom_metadata").cloned();
        let metadata = metadata.unwrap_or_else(|| Value::Object(Map::new()));
        let is_nested = |value: &Value| value.is_object() || value.is_array() || value.is_null();
        let custom_metadata = match metadata {
            Value::Object(metadata) if !metadata.values().any(is_nested) => metadata,
            _ => {
                let message = "Values should be strings, numbers or booleans";
                problems.push(problem("custom_metadata", message, "dict_type"));
                Map::new()
            }
        };
        if !problems.is_empty() {
            return Err(ApiError::invalid(&problems));
        }
        Ok(Self {
            file_name: text("file_name").unwrap_or_default(),
            mime_type: text("mime_type"),
            content_length: value("content_length").and_then(Value::as_u64),
            hash_sha256: text("hash_sha256"),
            idempotency_key: text("idempotency_key"),
            purpose: text("purpose"),
            custom_metadata,
        })
    }
}
