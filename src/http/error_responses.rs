//! The errors that all paths of a listener can return, for the OpenAPI document.

use utoipa::IntoResponses;

use super::error;

/// Errors of the public listener.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) enum PublicErrors {
    /// The request is malformed.
    #[response(status = 400)]
    BadRequest(#[to_schema] error::Body<'static>),
    /// The request has no credential, or an invalid one.
    #[response(status = 401, headers(("WWW-Authenticate" = String)))]
    Unauthenticated(#[to_schema] error::Body<'static>),
    /// A policy denies the request, or it comes from another site.
    #[response(status = 403)]
    Forbidden(#[to_schema] error::Body<'static>),
    /// The route does not exist.
    #[response(status = 404)]
    NotFound(#[to_schema] error::Body<'static>),
    /// The route does not support this method.
    #[response(status = 405)]
    MethodNotAllowed(#[to_schema] error::Body<'static>),
    /// The gate or Imgwire failed, or a policy could not decide.
    #[response(status = 500)]
    Failed(#[to_schema] error::Body<'static>),
}

/// Errors of the management listener.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) enum ManagementErrors {
    /// The request is malformed.
    #[response(status = 400)]
    BadRequest(#[to_schema] error::Body<'static>),
    /// The management token is missing or wrong. Without a configured token: the request is not from this machine.
    #[response(status = 401, headers(("WWW-Authenticate" = String)))]
    Unauthenticated(#[to_schema] error::Body<'static>),
    /// `Host` is neither an IP address, `localhost` nor a configured name.
    #[response(status = 403)]
    Forbidden(#[to_schema] error::Body<'static>),
    /// The route or policy does not exist.
    #[response(status = 404)]
    NotFound(#[to_schema] error::Body<'static>),
    /// The body is not JSON.
    #[response(status = 415)]
    UnsupportedMediaType(#[to_schema] error::Body<'static>),
    /// A store failed.
    #[response(status = 500)]
    Failed(#[to_schema] error::Body<'static>),
}
