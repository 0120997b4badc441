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

    /// Whether Imgwire says that the upload token is what is missing.
    pub(super) fn names_the_missing_token(&self) -> bool {
        let detail = self.error.detail.as_deref().unwrap_or_default();
        let detail = detail.to_ascii_lowercase();
        let says = |text| detail.contains(text);
        let is_missing = ["required", "missing", "without", "must", "need", "provide"];
        ["upload token", "upload_token", "unsigned", "signed upload"]
            .into_iter()
            .any(says)
            || says("token") && is_missing.into_iter().any(says)
    }
}
