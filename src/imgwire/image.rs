//! Images as Imgwire describes them.

use std::{borrow::Cow, collections::BTreeMap};

use policies::{ImageId, TokenId};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use strum::EnumString;
use url::Url;

use super::error::ImgwireError;
use crate::outbound::{InvalidResponse, find_members, read_members, wrong_type};

const ID: &str = "id";
const STATUS: &str = "status";
const TOKEN: &str = "upload_token_id";
const MIME_TYPE: &str = "mime_type";
const SIZE: &str = "size_bytes";
const DELETED_AT: &str = "deleted_at";
const METADATA: &str = "custom_metadata";

/// The fields of an image besides `exif_data`. None of them is an object or a list, except for `custom_metadata`.
const FIELDS: [&str; 21] = [
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
    METADATA,
];

#[derive(Clone, Debug)]
pub struct Image {
    pub id: ImageId,
    pub status: ImageStatus,
    /// The upload token that created the image, if one did.
    pub token: Option<TokenId>,
    /// The type and the size are the declared ones until the image is processed.
    pub mime_type: Option<String>,
    pub size: Option<u64>,
    pub is_deleted: bool,
    /// The members of the fields without the metadata, as JSON.
    fields: String,
    metadata: BTreeMap<String, Box<RawValue>>,
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
#[derive(Clone)]
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
    pub(super) fn parse(json: &[u8]) -> Result<Self, InvalidResponse> {
        let found = find_members(json, FIELDS)?;
        let mut fields = String::with_capacity(json.len());
        let mut metadata = BTreeMap::new();
        for (name, value) in FIELDS.into_iter().zip(found) {
            let Some(value) = value else { continue };
            let is_structure = value.get().starts_with(['{', '[']);
            if name == METADATA {
                match value.get() {
                    "null" => {}
                    text if text.starts_with('{') => {
                        read_members(text.as_bytes(), |key, value| {
                            metadata
                                .insert(key.into_owned(), value.to_owned())
                                .is_none()
                        })?
                    }
                    _ => return Err(wrong(METADATA, "an object", value)),
                }
            } else if is_structure {
                return Err(wrong(name, "a single value", value));
            } else {
                for part in ["\"", name, "\":", value.get(), ","] {
                    fields.push_str(part);
                }
            }
        }
        // Absent and null are the same.
        let field = |name| {
            let mut fields = FIELDS.iter().zip(found);
            let found = fields.find(|(field, _)| **field == name);
            let value = found.and_then(|(_, value)| value);
            value.filter(|value| value.get() != "null")
        };
        let text = |name| field(name).map(|value| self::text(name, value)).transpose();
        let required = |name| text(name)?.ok_or(InvalidResponse::Missing(name));
        let invalid = |name, expected, text: &str| wrong_type(name, expected, &text.into());
        let id = required(ID)?;
        let status = required(STATUS)?;
        let token = text(TOKEN)?
            .map(|token| TokenId::parse(&token).ok_or_else(|| invalid(TOKEN, "an id", &token)));
        Ok(Self {
            id: ImageId::parse(&id).ok_or_else(|| invalid(ID, "an id", &id))?,
            status: (status.parse())
                .map_err(|_| invalid(STATUS, "a status of an image", &status))?,
            token: token.transpose()?,
            mime_type: text(MIME_TYPE)?.map(Cow::into_owned),
            size: field(SIZE)
                .map(|size| {
                    serde_json::from_str(size.get())
                        .map_err(|_| wrong(SIZE, "a whole number of at least 0", size))
                })
                .transpose()?,
            is_deleted: text(DELETED_AT)?.is_some(),
            metadata,
            fields,
        })
    }

    /// The image for a client, as JSON: the fields that Imgwire documents, without EXIF data, and of the metadata only the
    /// keys that `is_shown` accepts.
    #[must_use]
    pub fn for_client(&self, is_shown: impl Fn(&str) -> bool) -> String {
        let shown = self
            .metadata
            .iter()
            .filter(|(key, value)| is_shown(key) && !value.get().starts_with(['{', '[']));
        let mut json = format!("{{{}\"custom_metadata\":{{", self.fields);
        for (index, (key, value)) in shown.enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let key = Value::from(key.as_str()).to_string();
            for part in [separator, &key, ":", value.get()] {
                json.push_str(part);
            }
        }
        json.push_str("},\"exif_data\":{}}");
        json
    }
}

impl CreatedUpload {
    pub(super) fn parse(text: &[u8]) -> Result<Self, ImgwireError> {
        const URL: &str = "upload_url";
        let [image, url] = find_members(text, ["image", URL])?;
        let image = image.ok_or(InvalidResponse::Missing("image"))?;
        if !image.get().starts_with('{') {
            return Err(wrong("image", "an object", image).into());
        }
        let image = Image::parse(image.get().as_bytes())?;
        let upload_url = self::text(URL, url.ok_or(InvalidResponse::Missing(URL))?)?;
        let is_url = Url::parse(&upload_url)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !is_url {
            let reason = "its `upload_url` is not an http or https URL";
            return Err(ImgwireError::InvalidResponse(reason.to_owned()));
        }
        Ok(Self {
            image,
            upload_url: upload_url.into_owned(),
        })
    }
}

/// Reads a string, which is copied only if it has escapes.
fn text<'a>(name: &'static str, value: &'a RawValue) -> Result<Cow<'a, str>, InvalidResponse> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    let text = serde_json::from_str(value.get());
    text.map(|Text(text)| text)
        .map_err(|_| wrong(name, "a string", value))
}

fn wrong(name: &'static str, expected: &'static str, found: &RawValue) -> InvalidResponse {
    // A string with an escape that is no character is not JSON for serde_json.
    serde_json::from_str(found.get()).map_or(InvalidResponse::NotJson, |found| {
        wrong_type(name, expected, &found)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(image: &Value) -> Result<Image, InvalidResponse> {
        Image::parse(image.to_string().as_bytes())
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
        let shown: Value = serde_json::from_str(&shown).expect("it is JSON");
        assert_eq!(shown, expected);
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
            let created = CreatedUpload::parse(response.to_string().as_bytes());
            assert_eq!(created.is_ok(), is_valid, "{url}");
        }
    }
}
