//! Images as Imgwire describes them.

use policies::{ImageId, TokenId};
use serde_json::{Map, Value};
use strum::EnumString;
use url::Url;

use super::error::ImgwireError;
use crate::outbound::{InvalidResponse, JsonObject, wrong_type};

const ID: &str = "id";
const STATUS: &str = "status";
const TOKEN: &str = "upload_token_id";
const MIME_TYPE: &str = "mime_type";
const SIZE: &str = "size_bytes";
const DELETED_AT: &str = "deleted_at";
const METADATA: &str = "custom_metadata";
const EXIF: &str = "exif_data";

/// The fields of an image besides `custom_metadata` and `exif_data`. None of them is an object or a list.
const FIELDS: [&str; 20] = [
    ID,
    "environment_id",
    TOKEN,
    "original_filename",
    "hash_sha256",
    STATUS,
    "cdn_url",
    MIME_TYPE,
    "can_upload",
    "is_directly_deliverable",
    "idempotency_key",
    "purpose",
    "extension",
    "width",
    "height",
    SIZE,
    "created_at",
    "updated_at",
    DELETED_AT,
    "processed_metadata_at",
];

#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    pub id: ImageId,
    pub status: ImageStatus,
    /// The upload token that created the image, if one did.
    pub token: Option<TokenId>,
    /// The type and the size are the declared ones until the image is processed.
    pub mime_type: Option<String>,
    pub size: Option<u64>,
    pub is_deleted: bool,
    fields: Map<String, Value>,
    metadata: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString)]
#[strum(serialize_all = "UPPERCASE")]
pub enum ImageStatus {
    /// The bytes have not arrived.
    Pending,
    Processing,
    Ready,
    Quarantine,
}

/// An image without bytes, and where to send them.
#[derive(Clone, PartialEq)]
pub struct CreatedUpload {
    pub image: Image,
    /// Authorizes the upload, so it must not get into the log.
    pub upload_url: String,
}

impl std::fmt::Debug for CreatedUpload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedUpload")
            .field("image", &self.image.id)
            .finish_non_exhaustive()
    }
}

impl Image {
    pub(super) fn parse(object: JsonObject) -> Result<Self, InvalidResponse> {
        let mut members = object.into_members();
        let mut fields = Map::new();
        for name in FIELDS {
            let Some(value) = members.remove(name) else {
                continue;
            };
            if value.is_object() || value.is_array() {
                return Err(wrong_type(name, "a single value", &value));
            }
            fields.insert(name.to_owned(), value);
        }
        let metadata = match members.remove(METADATA) {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(metadata)) => metadata,
            Some(other) => return Err(wrong_type(METADATA, "an object", &other)),
        };
        // Absent and null are the same.
        let field = |name| fields.get(name).filter(|value| !value.is_null());
        let text = |name| match field(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(other) => Err(wrong_type(name, "a string", other)),
        };
        let required = |name| text(name)?.ok_or(InvalidResponse::Missing(name));
        let invalid = |name, expected, text: &str| wrong_type(name, expected, &text.into());
        let id = required(ID)?;
        let status = required(STATUS)?;
        let token = text(TOKEN)?
            .map(|token| TokenId::parse(token).ok_or_else(|| invalid(TOKEN, "an id", token)));
        Ok(Self {
            id: ImageId::parse(id).ok_or_else(|| invalid(ID, "an id", id))?,
            status: (status.parse())
                .map_err(|_| invalid(STATUS, "a status of an image", status))?,
            token: token.transpose()?,
            mime_type: text(MIME_TYPE)?.map(str::to_owned),
            size: field(SIZE)
                .map(|size| {
                    let expected = "a whole number of at least 0";
                    size.as_u64()
                        .ok_or_else(|| wrong_type(SIZE, expected, size))
                })
                .transpose()?,
            is_deleted: text(DELETED_AT)?.is_some(),
            metadata,
            fields,
        })
    }

    /// The image for a client: the fields that Imgwire documents, without EXIF data, and of the metadata only the keys
    /// that `is_shown` accepts.
    #[must_use]
    pub fn for_client(&self, is_shown: impl Fn(&str) -> bool) -> Map<String, Value> {
        let mut fields = self.fields.clone();
        let metadata = self.metadata.iter();
        let metadata = metadata
            .filter(|(key, value)| is_shown(key) && !value.is_object() && !value.is_array())
            .map(|(key, value)| (key.clone(), value.clone()));
        fields.insert(METADATA.to_owned(), Value::Object(metadata.collect()));
        fields.insert(EXIF.to_owned(), Value::Object(Map::new()));
        fields
    }
}

impl CreatedUpload {
    pub(super) fn parse(mut object: JsonObject) -> Result<Self, ImgwireError> {
        let image = Image::parse(object.take_object("image")?)?;
        let upload_url = object.take_string("upload_url")?;
        let is_url = Url::parse(&upload_url)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !is_url {
            let reason = "its `upload_url` is not an http or https URL";
            return Err(ImgwireError::InvalidResponse(reason.to_owned()));
        }
        Ok(Self { image, upload_url })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(image: &Value) -> Result<Image, InvalidResponse> {
        Image::parse(JsonObject::parse(image.to_string().as_bytes())?)
    }

    #[test]
    fn only_documented_fields_and_shown_metadata_reach_a_client() {
        let image = json!({
            "id": "im_1", "status": "READY", "upload_token_id": null, "size_bytes": 7, "purpose": "avatar",
            "custom_metadata": { "alt": "x", "secret": 1, "nested": {} }, "exif_data": { "gps": [1, 2] },
            "more": "unknown", "deleted_at": null,
        });
        let image = parse(&image).expect("the image is valid");
        assert_eq!((image.status, image.size), (ImageStatus::Ready, Some(7)));
        assert!(!image.is_deleted);
        let shown = image.for_client(|key| key != "secret");
        let expected = json!({
            "id": "im_1", "status": "READY", "upload_token_id": null, "size_bytes": 7, "purpose": "avatar",
            "custom_metadata": { "alt": "x" }, "exif_data": {}, "deleted_at": null,
        });
        assert_eq!(Value::Object(shown), expected);
    }

    #[test]
    fn an_image_with_a_field_of_another_type_is_invalid() {
        for (name, value) in [
            ("id", json!(null)),
            ("id", json!("a/b")),
            ("id", json!(1)),
            ("status", json!("LOST")),
            ("status", json!(null)),
            ("upload_token_id", json!("")),
            ("mime_type", json!(1)),
            ("size_bytes", json!(-1)),
            ("size_bytes", json!("7")),
            ("deleted_at", json!(true)),
            ("purpose", json!({ "a": 1 })),
            ("custom_metadata", json!([])),
        ] {
            let mut image = json!({ "id": "im_1", "status": "PENDING" });
            assert!(parse(&image).is_ok());
            image[name] = value;
            assert!(parse(&image).is_err(), "{image}");
        }
    }

    #[test]
    fn an_upload_url_must_lead_somewhere() {
        for (url, is_valid) in [
            ("https://store.example/upload/1?signature=x", true),
            ("http://127.0.0.1:1234/upload", true),
            ("javascript:alert(1)", false),
            ("data:text/html,x", false),
            ("/upload/1", false),
            ("", false),
        ] {
            let response =
                json!({ "image": { "id": "a", "status": "PENDING" }, "upload_url": url });
            let response = JsonObject::parse(response.to_string().as_bytes());
            let response = response.expect("the response is an object");
            assert_eq!(CreatedUpload::parse(response).is_ok(), is_valid, "{url}");
        }
    }
}
