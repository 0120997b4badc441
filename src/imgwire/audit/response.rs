//! Responses of Imgwire, as an audit reads them.

use actix_web::http::{
    StatusCode,
    header::{self, HeaderMap},
};
use bytes::Bytes;
use jiff::SignedDuration;
use serde_json::Value;

use crate::outbound::parse_json;

/// The longest text of a response that a message shows.
const MAX_SHOWN: usize = 200;

pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// How far Imgwire's clock is ahead of ours; `None` if the response does not tell.
    pub(super) skew: Option<SignedDuration>,
}

/// Why Imgwire refused a call, in its published format: `{"detail","error_type"}`, or the list of a validation error.
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) kind: RefusalKind,
    /// Bounded, and without control characters.
    detail: String,
}

/// The published types of errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RefusalKind {
    /// The key, the token or the bearer is invalid.
    InvalidToken,
    NotAuthorized,
    NotAllowed,
    PaymentRequired,
    /// The request is invalid.
    Validation,
    Other(String),
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

    /// `None` if this is not an error in Imgwire's format.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        if self.status.is_success() {
            return None;
        }
        let body = self.json()?;
        let (kind, detail) = match body.get("detail")? {
            Value::String(detail) => {
                let kind = match body.get("error_type")?.as_str()? {
                    "InvalidTokenError" => RefusalKind::InvalidToken,
                    "ResourceNotAuthorizedError" => RefusalKind::NotAuthorized,
                    "OperationNotAllowedError" => RefusalKind::NotAllowed,
                    "PaymentRequiredError" => RefusalKind::PaymentRequired,
                    other => RefusalKind::Other(printable(other)),
                };
                (kind, printable(detail))
            }
            Value::Array(faults) => {
                let faults = faults.iter().take(3).map(|fault| {
                    let location = fault["loc"].as_array().into_iter().flatten();
                    let location: Vec<_> = location.filter_map(Value::as_str).collect();
                    let message = fault["msg"].as_str().unwrap_or_default();
                    format!("{}: {message}", location.join("."))
                });
                let faults: Vec<_> = faults.collect();
                (RefusalKind::Validation, printable(&faults.join("; ")))
            }
            _ => return None,
        };
        Some(Refusal {
            status: self.status.as_u16(),
            kind,
            detail,
        })
    }

    /// Describes a response that the audit did not expect.
    pub(super) fn describe(&self) -> String {
        match self.refusal() {
            Some(refusal) => refusal.describe(),
            None => format!("status {}", self.status.as_u16()),
        }
    }
}

impl Refusal {
    /// For example `status 401, InvalidTokenError: The key was revoked`.
    pub(super) fn describe(&self) -> String {
        let Self {
            status,
            kind,
            detail,
        } = self;
        format!("status {status}, {}: {detail}", kind.name())
    }

    /// Whether Imgwire says that the upload token is what is missing.
    pub(super) fn names_the_missing_token(&self) -> bool {
        let detail = self.detail.to_ascii_lowercase();
        let says = |text| detail.contains(text);
        let is_missing = ["required", "missing", "without", "must", "need", "provide"];
        ["upload token", "upload_token", "unsigned", "signed upload"]
            .into_iter()
            .any(says)
            || says("token") && is_missing.into_iter().any(says)
    }
}

impl RefusalKind {
    fn name(&self) -> &str {
        match self {
            Self::InvalidToken => "InvalidTokenError",
            Self::NotAuthorized => "ResourceNotAuthorizedError",
            Self::NotAllowed => "OperationNotAllowedError",
            Self::PaymentRequired => "PaymentRequiredError",
            Self::Validation => "validation error",
            Self::Other(name) => name,
        }
    }
}

/// Text of Imgwire: bounded, and without control characters.
fn printable(text: &str) -> String {
    let text = text.chars().filter(|character| !character.is_control());
    text.take(MAX_SHOWN).collect()
}
