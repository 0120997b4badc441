//! Errors in the published formats.

use std::fmt;

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::scenario::{ErrorType, Scenario};

impl ErrorType {
    const fn status(self, scenario: &Scenario) -> u16 {
        match self {
            Self::InvalidToken => 401,
            Self::ResourceNotAuthorized => scenario.undocumented.not_authorized_status,
            Self::OperationNotAllowed => 403,
            Self::PaymentRequired => scenario.undocumented.payment_required_status,
            Self::ResourceNotFound => 404,
        }
    }
}

#[derive(Debug)]
pub(super) struct ApiError {
    status: u16,
    body: Value,
}

impl Scenario {
    pub(super) fn error(&self, kind: ErrorType, detail: &str) -> ApiError {
        ApiError {
            status: kind.status(self),
            body: json!({ "detail": detail, "error_type": kind }),
        }
    }
}

impl ApiError {
    /// An error of the web framework.
    pub(super) fn plain(status: u16, detail: &str) -> Self {
        Self {
            status,
            body: json!({ "detail": detail }),
        }
    }

    pub(super) fn detail(&self) -> &Value {
        &self.body["detail"]
    }

    pub(super) fn invalid(problems: &[Problem]) -> Self {
        Self {
            status: 422,
            body: json!({ "detail": problems }),
        }
    }
}

/// An entry of a validation error.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    loc: Vec<String>,
    msg: &'static str,
    r#type: &'static str,
}

impl Problem {
    pub(super) fn new(place: &str, name: &str, msg: &'static str, kind: &'static str) -> Self {
        let names = [place, name].into_iter().filter(|name| !name.is_empty());
        Self {
            loc: names.map(str::to_owned).collect(),
            msg,
            r#type: kind,
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.body)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status_code()).json(&self.body)
    }
}
