//! The errors of the API, with the status, the code and the headers of each.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode, header},
};
use policies::{Denial, DenialClass};
use serde::Serialize;
use strum::{IntoStaticStr, VariantNames};
use utoipa::{
    IntoResponses, PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, schema::Type},
};

use crate::telemetry::{LogFields, RequestId};

/// An error response. Its code is the name of the variant in snake case, or that of the denial.
#[derive(Debug, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum ApiError {
    /// A policy denies, or a credential is invalid.
    Denied(Denial),
    ImgwireFailed,
    Overloaded,
    /// A policy cannot decide, or the gate failed.
    Internal,
    BadRequest,
    BodyTooLarge,
    UnsupportedMediaType,
    NotFound,
    /// Holds the allowed methods.
    MethodNotAllowed(&'static [Method]),
}

/// An error.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(crate) struct Body<'a> {
    /// The reason phrase of the status, for example `Forbidden`.
    error: &'static str,
    /// A stable code for programs.
    #[schema(value_type = ErrorCode)]
    code: &'static str,
    /// The id of the request, as in `X-Request-Id` and the log.
    #[serde(rename = "requestId")]
    #[schema(value_type = String)]
    request_id: &'a RequestId,
    /// A message for the user, if the config of the policy has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

/// For the API's description: the enum of all codes.
pub(crate) struct ErrorCode;

impl PartialSchema for ErrorCode {
    fn schema() -> RefOr<Schema> {
        let own = ApiError::VARIANTS.iter().copied();
        // A denial has a code of its own.
        let own = own.filter(|code| *code != "denied");
        let codes = Denial::codes().into_iter().chain(own);
        let schema = ObjectBuilder::new().schema_type(Type::String);
        schema.enum_values(Some(codes)).build().into()
    }
}

impl ToSchema for ErrorCode {}

#[must_use]
pub fn status_of(class: DenialClass) -> StatusCode {
    match class {
        DenialClass::Unauthenticated => StatusCode::UNAUTHORIZED,
        DenialClass::Forbidden => StatusCode::FORBIDDEN,
        DenialClass::Limited => StatusCode::TOO_MANY_REQUESTS,
    }
}

impl ApiError {
    #[must_use]
    pub fn describe(&self) -> (StatusCode, &'static str) {
        let status = match self {
            Self::Denied(denial) => return (status_of(denial.class()), denial.code()),
            Self::ImgwireFailed | Self::Overloaded | Self::Internal => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
        };
        (status, self.into())
    }

    /// The status of a result, and the code if it is an error.
    #[must_use]
    pub fn describe_result<T>(result: &Result<T, Self>) -> (u16, Option<&'static str>) {
        result.as_ref().err().map_or((200, None), |error| {
            let (status, code) = error.describe();
            (status.as_u16(), Some(code))
        })
    }

    /// The error for a status that the framework produced.
    #[must_use]
    pub fn from_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed(&[]),
            StatusCode::PAYLOAD_TOO_LARGE => Self::BodyTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            status if status.is_client_error() => Self::BadRequest,
            _ => Self::Internal,
        }
    }

    #[must_use]
    pub fn response(&self, request_id: &RequestId) -> HttpResponse {
        self.response_with(request_id, None)
    }

    /// With a message for the user.
    #[must_use]
    pub fn response_with(&self, request_id: &RequestId, message: Option<&str>) -> HttpResponse {
        let (status, code) = self.describe();
        let mut response = HttpResponse::build(status);
        match self {
            Self::Denied(denial) => {
                if denial.class() == DenialClass::Unauthenticated {
                    let challenge = match denial {
                        Denial::NotSignedIn => "Bearer",
                        _ => "Bearer error=\"invalid_token\"",
                    };
                    response.insert_header((header::WWW_AUTHENTICATE, challenge));
                }
                if let Some(retry_after) = denial.retry_after() {
                    let seconds = whole_seconds(retry_after).max(1);
                    response.insert_header((header::RETRY_AFTER, seconds));
                }
            }
            Self::Overloaded => {
                response.insert_header((header::RETRY_AFTER, 1));
            }
            Self::MethodNotAllowed(allowed) if !allowed.is_empty() => {
                let allowed: Vec<_> = allowed.iter().map(Method::as_str).collect();
                response.insert_header((header::ALLOW, allowed.join(", ")));
            }
            _ => {}
        }
        let mut response = response.json(Body {
            error: status.canonical_reason().unwrap_or("Error"),
            code,
            request_id,
            message,
        });
        let denial = match self {
            Self::Denied(denial) => Some(denial.clone()),
            _ => None,
        };
        LogFields::update(&mut response, |fields| {
            fields.code = Some(code);
            fields.denial = denial;
        });
        response
    }
}

pub(crate) fn refuse(request: &HttpRequest, error: &ApiError) -> HttpResponse {
    error.response(&RequestId::of(request))
}

/// Responds with 500, and logs the fault.
pub(super) fn fail(request: &HttpRequest, fault: &impl std::fmt::Display) -> HttpResponse {
    let mut response = refuse(request, &ApiError::Internal);
    LogFields::update(&mut response, |fields| {
        fields.fault = Some(fault.to_string());
    });
    response
}

/// Rounds up, so that waiting that long is always enough.
#[must_use]
pub fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// The errors that all paths of the public listener can return, for the OpenAPI document.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) enum PublicErrors {
    /// The request is malformed.
    #[response(status = 400)]
    BadRequest(#[to_schema] Body<'static>),
    /// The request has no credential, or an invalid one.
    #[response(status = 401, headers(("WWW-Authenticate" = String)))]
    Unauthenticated(#[to_schema] Body<'static>),
    /// A policy denies the request, or it comes from another site.
    #[response(status = 403)]
    Forbidden(#[to_schema] Body<'static>),
    /// The route does not exist.
    #[response(status = 404)]
    NotFound(#[to_schema] Body<'static>),
    /// The route does not support this method.
    #[response(status = 405)]
    MethodNotAllowed(#[to_schema] Body<'static>),
    /// The gate or Imgwire failed, or a policy could not decide.
    #[response(status = 500)]
    Failed(#[to_schema] Body<'static>),
}

/// The errors that all paths of the management listener can return.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) enum ManagementErrors {
    /// The request is malformed.
    #[response(status = 400)]
    BadRequest(#[to_schema] Body<'static>),
    /// The management token is missing or wrong. Without a configured token: the request is not from this machine.
    #[response(status = 401, headers(("WWW-Authenticate" = String)))]
    Unauthenticated(#[to_schema] Body<'static>),
    /// `Host` is neither an IP address, `localhost` nor a configured name.
    #[response(status = 403)]
    Forbidden(#[to_schema] Body<'static>),
    /// The route or policy does not exist.
    #[response(status = 404)]
    NotFound(#[to_schema] Body<'static>),
    /// The body is not JSON.
    #[response(status = 415)]
    UnsupportedMediaType(#[to_schema] Body<'static>),
    /// A store failed.
    #[response(status = 500)]
    Failed(#[to_schema] Body<'static>),
}
