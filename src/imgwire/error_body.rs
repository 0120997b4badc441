//! What Imgwire says about a failed call.

use secrecy::SecretString;
use serde_json::Value;

use super::log_text::log_text;
use crate::outbound::JsonObject;

const MAX_TYPE_BYTES: usize = 64;
const MAX_DETAIL_BYTES: usize = 300;

/// How many errors of a validation are read.
const MAX_VALIDATION_ERRORS: usize = 5;

/// The body of a failed response: `{"detail", "error_type"}`, or, with status 422, a list of errors as `detail`. What
/// is missing or of another type is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorBody {
    /// For the log.
    pub error_type: Option<String>,
    /// For the log.
    pub detail: Option<String>,
    pub(super) kind: Option<ErrorKind>,
}

/// The types of errors that Imgwire documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorKind {
    InvalidToken,
    ResourceNotAuthorized,
    OperationNotAllowed,
    PaymentRequired,
    ResourceNotFound,
    /// It has no `error_type`, but a list as `detail`.
    Validation,
    Other,
}

impl ErrorKind {
    fn parse(error_type: &str) -> Self {
        match error_type {
            "InvalidTokenError" => Self::InvalidToken,
            "ResourceNotAuthorizedError" => Self::ResourceNotAuthorized,
            "OperationNotAllowedError" => Self::OperationNotAllowed,
            "PaymentRequiredError" => Self::PaymentRequired,
            "ResourceNotFoundError" => Self::ResourceNotFound,
            _ => Self::Other,
        }
    }

    /// The label in metrics.
    fn name(self) -> &'static str {
        match self {
            Self::InvalidToken => "InvalidTokenError",
            Self::ResourceNotAuthorized => "ResourceNotAuthorizedError",
            Self::OperationNotAllowed => "OperationNotAllowedError",
            Self::PaymentRequired => "PaymentRequiredError",
            Self::ResourceNotFound => "ResourceNotFoundError",
            Self::Validation => "validation",
            Self::Other => "other",
        }
    }
}

impl ErrorBody {
    pub(super) fn parse(status: u16, body: &[u8], key: &SecretString) -> Self {
        let Ok(mut body) = JsonObject::parse(body) else {
            return Self::default();
        };
        let error_type = body.take_string("error_type").ok();
        let (detail, kind) = match body.take("detail") {
            Ok(Value::String(detail)) => (Some(detail), None),
            Ok(Value::Array(errors)) if status == 422 => {
                let errors = validation_errors(&errors);
                let kind = errors.is_some().then_some(ErrorKind::Validation);
                (errors, kind)
            }
            _ => (None, None),
        };
        let text = |text: Option<String>, max| log_text(text?, key, max);
        Self {
            kind: error_type.as_deref().map(ErrorKind::parse).or(kind),
            error_type: text(error_type, MAX_TYPE_BYTES),
            detail: text(detail, MAX_DETAIL_BYTES),
        }
    }

    /// Whether the body says nothing that Imgwire would say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.error_type.is_none() && self.detail.is_none()
    }

    /// The error type as a label in metrics.
    pub(super) fn label(&self) -> &'static str {
        self.kind.map_or("none", ErrorKind::name)
    }
}

/// Reads `[{"loc", "msg", "type"}]`. Returns `None` if an entry is something else.
fn validation_errors(errors: &[Value]) -> Option<String> {
    let errors = errors.iter().take(MAX_VALIDATION_ERRORS).map(|error| {
        let location = error.get("loc")?.as_array()?.iter().map(|part| match part {
            Value::String(name) => Some(name.clone()),
            Value::Number(index) => Some(index.to_string()),
            _ => None,
        });
        let location = location.collect::<Option<Vec<_>>>()?.join(".");
        let (message, kind) = (error.get("msg")?.as_str()?, error.get("type")?.as_str()?);
        Some(format!("{location}: {message} ({kind})"))
    });
    Some(errors.collect::<Option<Vec<_>>>()?.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(status: u16, body: &str) -> (Option<String>, Option<String>, &'static str) {
        let body = ErrorBody::parse(status, body.as_bytes(), &SecretString::from("the-key"));
        let label = body.label();
        (body.error_type, body.detail, label)
    }

    #[test]
    fn only_the_documented_shapes_are_read() {
        let validation = r#"{"detail":[{"loc":["body","a",0],"msg":"no","type":"missing"}]}"#;
        let nested = format!("{{\"detail\":{}1{}}}", "[".repeat(9999), "]".repeat(9999));
        for (status, body, error_type, detail, label) in [
            (
                402,
                r#"{"detail":"Plan exhausted","error_type":"PaymentRequiredError"}"#,
                Some("PaymentRequiredError"),
                Some("Plan exhausted"),
                "PaymentRequiredError",
            ),
            (
                400,
                r#"{"detail":"x","error_type":"NewError","more":{}}"#,
                Some("NewError"),
                Some("x"),
                "other",
            ),
            (
                422,
                validation,
                None,
                Some("body.a.0: no (missing)"),
                "validation",
            ),
            (400, validation, None, None, "none"),
            (
                422,
                r#"{"detail":[{"loc":[{}],"msg":"","type":""}]}"#,
                None,
                None,
                "none",
            ),
            (422, r#"{"detail":["x"]}"#, None, None, "none"),
            (
                404,
                r#"{"detail":"Not Found"}"#,
                None,
                Some("Not Found"),
                "none",
            ),
            (
                401,
                r#"{"detail":{"a":1},"error_type":7}"#,
                None,
                None,
                "none",
            ),
            (
                401,
                r#"{"error_type":"A","error_type":"B"}"#,
                None,
                None,
                "none",
            ),
            (401, r#"["InvalidTokenError"]"#, None, None, "none"),
            (401, "<html>", None, None, "none"),
            (422, &nested, None, None, "none"),
        ] {
            let read = parse(status, body);
            let read = (read.0.as_deref(), read.1.as_deref(), read.2);
            assert_eq!(read, (error_type, detail, label), "{status} {body:.80}");
        }
    }
}
