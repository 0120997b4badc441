//! The body of a request for an upload, as the SDKs of Imgwire send it.

use std::fmt;

use policies::{DeclaredFile, MimeType, Purpose, UploadRequest};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::gate::upload_call::Upload;

/// The longest text, in characters.
const MAX_CHARS: usize = 255;

/// An upload, as Imgwire's API describes it. Other fields are ignored.
#[derive(Deserialize, ToSchema)]
#[schema(as = StandardUpload)]
pub(crate) struct UploadBody {
    /// The file name.
    #[schema(value_type = String, min_length = 1, max_length = 255)]
    file_name: Text,
    /// The media type, for example `image/png`.
    #[serde(default)]
    mime_type: Option<String>,
    /// The size in bytes.
    #[serde(default)]
    #[schema(format = "uint64")]
    content_length: Option<u64>,
    /// The SHA-256 of the file.
    #[serde(default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255)]
    hash_sha256: Option<Text>,
    /// A repeated request with the same key and the same parameters gets the same image.
    #[serde(default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255)]
    idempotency_key: Option<Text>,
    /// The purpose of the upload, for example `avatar`.
    #[serde(default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255)]
    purpose: Option<Purpose>,
    /// Strings, numbers and booleans. Keys that the route does not allow are dropped.
    #[serde(default)]
    #[schema(value_type = Option<std::collections::BTreeMap<String, Value>>)]
    custom_metadata: Option<Metadata>,
}

impl UploadBody {
    /// The file as the chain and Imgwire see it.
    pub(super) fn file(&self) -> DeclaredFile {
        let mime_type = self.mime_type.as_deref().map(|declared| {
            // One spelling for the chain and for Imgwire. The chain denies other types.
            let supported = MimeType::of(declared).map(MimeType::as_str);
            supported.map_or_else(|| declared.to_owned(), str::to_owned)
        });
        DeclaredFile {
            name: Some(self.file_name.0.clone()),
            mime_type,
            size: self.content_length,
        }
    }

    pub(super) fn purpose(&self) -> Option<Purpose> {
        self.purpose.clone()
    }

    pub(super) fn into_upload(self, request: UploadRequest) -> Upload {
        Upload {
            request,
            hash_sha256: self.hash_sha256.map(|Text(text)| text),
            idempotency_key: self.idempotency_key.map(|Text(text)| text),
            metadata: self
                .custom_metadata
                .map(|metadata| metadata.0)
                .unwrap_or_default(),
        }
    }
}

/// A text of 1 to 255 characters, none of which is a control character.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Text(String);

impl TryFrom<String> for Text {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if !(1..=MAX_CHARS).contains(&text.chars().count()) {
            Err(format!("must have 1 to {MAX_CHARS} characters"))
        } else if text.chars().any(char::is_control) {
            Err("must not have control characters".to_owned())
        } else {
            Ok(Self(text))
        }
    }
}

/// Metadata without duplicate keys.
struct Metadata(Map<String, Value>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MetadataVisitor;

        impl<'de> Visitor<'de> for MetadataVisitor {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut metadata = Map::new();
                while let Some((key, Scalar(value))) = map.next_entry::<String, _>()? {
                    if metadata.insert(key, value).is_some() {
                        return Err(A::Error::custom("duplicate key"));
                    }
                }
                Ok(Metadata(metadata))
            }
        }

        deserializer.deserialize_map(MetadataVisitor)
    }
}

/// A value of the metadata.
struct Scalar(Value);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;

        impl Visitor<'_> for ScalarVisitor {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a number or a boolean")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar(value.into()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar(value.into()))
            }
        }

        deserializer.deserialize_any(ScalarVisitor)
    }
}
