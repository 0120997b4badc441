//! Responses of Imgwire, as an audit reads them.

use actix_web::http::{
    StatusCode,
    header::{self, HeaderMap},
};
use bytes::Bytes;
use jiff::SignedDuration;
use serde_json::Value;

use crate::{
    imgwire::error_body::{ErrorBody, ErrorKind},
    outbound::parse_json,
};

pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// What a failed response says.
    pub(super) error: ErrorBody,
    /// How far Imgwire's clock is ahead of ours; `None` if the response does not tell.
    pub(super) skew: Option<SignedDuration>,
}

impl Response {
    pub(super) fn json(&self) -> Option<Value> {
        parse_json(&self.body).ok()
    }

    /// Whether the response is a page for people.
    pub(super) fn is_web_page(&self) -> bool {
        let kind = self.headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok());
        let is_html = kind.is_some_and(|kind| kind.to_ascii_lowercase().contains("html"));
        let start = self.body.iter().find(|byte| !byte.is_ascii_whitespace());
        is_html || start == Some(&b'<')
    }

    /// The type of an error in Imgwire's published format.
    pub(super) fn refusal(&self) -> Option<ErrorKind> {
        self.error.kind.filter(|_| !self.status.is_success())
    }

    /// For example `status 401, InvalidTokenError: Invalid API key`.
    pub(super) fn describe(&self) -> String {
        let ErrorBody {
            error_type, detail, ..
        } = &self.error;
        let mut text = format!("status {}", self.status.as_u16());
        if let Some(error_type) = error_type {
            text.push_str(", ");
            text.push_str(error_type);
        }
        if let Some(detail) = detail {
            text.push_str(": ");
            text.push_str(detail);
        }
        text
    }

    /// The images of a list that are not deleted. Whether Imgwire lists deleted ones is not documented.
    pub(super) fn images(&self) -> Vec<Value> {
        let Some(Value::Array(mut images)) = self.json() else {
            return Vec::new();
        };
        images.retain(|image| {
            image["deleted_at"].is_null() && image["id"].as_str().is_some_and(is_plain)
        });
        images
    }

    /// Whether Imgwire says that the upload is refused because it has no upload token.
    pub(super) fn names_the_missing_token(&self) -> bool {
        const IS_UNSIGNED: [&str; 3] = ["unsigned", "signed upload", "invalid upload token"];
        const IS_MISSING: [&str; 7] = [
            "require", "missing", "without", "must", "need", "provide", "expect",
        ];
        const OTHER_TOKENS: [&str; 4] = ["bearer", "authorization", "access token", "api token"];

        let is_missing = self.says(&["token"]) && self.says(&IS_MISSING);
        !self.names_a_limit()
            && (self.says(&IS_UNSIGNED) || is_missing && !self.says(&OTHER_TOKENS))
    }

    /// Whether Imgwire says that the upload exceeds a limit. A Client Key without any protection has limits, too.
    pub(super) fn names_a_limit(&self) -> bool {
        const LIMITS: [&str; 17] = [
            "limit",
            "exceed",
            "maximum",
            "too many",
            "too large",
            "pending",
            "size",
            "bytes",
            "content_length",
            "content length",
            "mime",
            "content type",
            "content-type",
            "content_type",
            "file type",
            "origin",
            "quota",
        ];

        self.status == StatusCode::TOO_MANY_REQUESTS || self.says(&LIMITS)
    }

    fn says(&self, texts: &[&str]) -> bool {
        let detail = self.error.detail.as_deref().unwrap_or_default();
        let detail = detail.to_ascii_lowercase();
        texts.iter().any(|text| detail.contains(text))
    }
}

/// Whether an id can stand in a path and in a message.
pub(super) fn is_plain(id: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=100).contains(&id.len()) && id.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(detail: &str) -> Response {
        Response {
            status: StatusCode::FORBIDDEN,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            error: ErrorBody {
                detail: Some(detail.to_owned()),
                ..ErrorBody::default()
            },
            skew: None,
        }
    }

    #[test]
    fn a_missing_token_is_named() {
        for detail in [
            "The key requires an upload token",
            "Missing upload_token",
            "Unsigned uploads are not allowed",
            "Only signed uploads are accepted",
            "A token must be provided",
            "Invalid upload token",
        ] {
            assert!(refusal(detail).names_the_missing_token(), "{detail}");
        }
    }

    #[test]
    fn other_reasons_do_not_name_a_missing_token() {
        for detail in [
            "",
            "Invalid API key",
            "Invalid token",
            "Missing bearer token",
            "too many pending uploads; use another upload token",
            "The MIME type requires an upload token",
            "Unsigned uploads have a maximum size of 1 KiB",
            "This origin needs an upload token",
            "Forbidden; use another upload token",
        ] {
            assert!(!refusal(detail).names_the_missing_token(), "{detail}");
        }
    }
}
