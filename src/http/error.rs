//! The errors of the API, with the status, the code and the headers of each.

use std::borrow::Cow;

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

use crate::{
    gate::outcome::Failure,
    telemetry::{LogFields, RequestId, seconds_to_wait},
};

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
    /// Says what is wrong with the request.
    BadRequest(Cow<'static, str>),
    /// Holds the maximum number of bytes.
    BodyTooLarge(usize),
    /// Holds what the request declares instead of JSON.
    UnsupportedMediaType(String),
    /// Says what does not exist.
    NotFound(&'static str),
    /// Holds the allowed methods.
    MethodNotAllowed(&'static [Method]),
}

impl From<&Failure> for ApiError {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::Denied(_, denial) => Self::Denied(denial.clone()),
            Failure::Faulted(..) | Failure::Unrecorded(_) => Self::Internal,
            Failure::ImgwireFailed(_) => Self::ImgwireFailed,
            Failure::KeyReused => Self::BadRequest(
                "\"idempotency_key\" was used for another upload; send a new key, or the same parameters"
                    .into(),
            ),
            Failure::NoImage(_) => Self::NotFound(NO_IMAGE),
        }
    }
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
    /// For 400, 404, 405, 413 and 415: what is wrong with the request. Otherwise a message for the user, if the config of
    /// the policy has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

/// For the API's description: the enum of all codes.
pub(crate) struct ErrorCode;

impl ErrorCode {
    pub(crate) fn all() -> impl Iterator<Item = &'static str> {
        let own = ApiError::VARIANTS.iter().copied();
        // A denial has a code of its own.
        let own = own.filter(|code| *code != "denied");
        Denial::codes().into_iter().chain(own)
    }
}

impl PartialSchema for ErrorCode {
    fn schema() -> RefOr<Schema> {
        let schema = ObjectBuilder::new().schema_type(Type::String);
        schema.enum_values(Some(Self::all())).build().into()
    }
}

impl ToSchema for ErrorCode {}

/// The message of a 404.
pub(crate) const NO_ROUTE: &str = "there is no such route";

const NO_IMAGE: &str = "there is no such image";

/// The maximum number of bytes of a body on the management listener.
pub(crate) const MANAGEMENT_BODY_LIMIT: usize = 256 * 1024;

fn names(methods: &[Method]) -> String {
    let names: Vec<_> = methods.iter().map(Method::as_str).collect();
    names.join(", ")
}

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
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
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
            StatusCode::NOT_FOUND => Self::NotFound(NO_ROUTE),
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed(&[]),
            StatusCode::PAYLOAD_TOO_LARGE => Self::BodyTooLarge(MANAGEMENT_BODY_LIMIT),
            status if status.is_client_error() => {
                Self::BadRequest("the request is malformed".into())
            }
            _ => Self::Internal,
        }
    }

    /// What is wrong with a malformed request.
    fn message(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Self::BadRequest(reason) => Cow::Borrowed(reason),
            Self::BodyTooLarge(most) => {
                format!("the body has more than {most} bytes, the most that are allowed").into()
            }
            Self::UnsupportedMediaType(found) => {
                format!("{found}; send the body as application/json").into()
            }
            Self::NotFound(reason) => Cow::Borrowed(*reason),
            Self::MethodNotAllowed([]) => "this route does not allow this method".into(),
            Self::MethodNotAllowed(allowed) => {
                format!("this route allows {}", names(allowed)).into()
            }
            Self::Denied(_) | Self::ImgwireFailed | Self::Overloaded | Self::Internal => {
                return None;
            }
        })
    }

    /// The reason for the log, unless the code, the path and the method say everything.
    fn reason(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::NotFound(_) | Self::MethodNotAllowed(_) => None,
            Self::Overloaded => Some("[server] max_in_flight: the limit is reached".into()),
            error => error.message(),
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
                    response.insert_header((header::RETRY_AFTER, seconds_to_wait(retry_after)));
                }
            }
            Self::Overloaded => {
                response.insert_header((header::RETRY_AFTER, 1));
            }
            Self::MethodNotAllowed(allowed) if !allowed.is_empty() => {
                response.insert_header((header::ALLOW, names(allowed)));
            }
            _ => {}
        }
        let own = self.message();
        let mut response = response.json(Body {
            error: status.canonical_reason().unwrap_or("Error"),
            code,
            request_id,
            message: message.or(own.as_deref()),
        });
        let denial = match self {
            Self::Denied(denial) => Some(denial.clone()),
            _ => None,
        };
        LogFields::update(&mut response, |fields| {
            fields.code = Some(code);
            fields.denial = denial;
            fields.reason = self.reason().map(Cow::into_owned);
        });
        response
    }
}

pub(crate) fn refuse(request: &HttpRequest, error: &ApiError) -> HttpResponse {
    error.response(&RequestId::of(request))
}

/// Responds with 500, and logs the fault.
pub(crate) fn fail(request: &HttpRequest, fault: &impl std::fmt::Display) -> HttpResponse {
    let mut response = refuse(request, &ApiError::Internal);
    LogFields::update(&mut response, |fields| {
        fields.reason = Some(fault.to_string());
    });
    response
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
