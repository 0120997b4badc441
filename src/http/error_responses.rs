//! The errors that every path of a listener can return, for the OpenAPI document.

use utoipa::IntoResponses;

use super::error;

/// What every path that pages ask may answer besides.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it describes answers, and is none")]
pub(crate) enum Refusals {
    /// The request makes no sense.
    #[response(status = 400)]
    BadRequest(#[to_schema] error::Body<'static>),
    /// Nobody is signed in, or the credential is no good.
    #[response(status = 401, headers(("WWW-Authenticate" = String)))]
    Unauthenticated(#[to_schema] error::Body<'static>),
    /// Whoever asks may not upload.
    #[response(status = 403)]
    Forbidden(#[to_schema] error::Body<'static>),
    /// There is no such route.
    #[response(status = 404)]
    NotFound(#[to_schema] error::Body<'static>),
    /// The route takes another method.
    #[response(status = 405)]
    MethodNotAllowed(#[to_schema] error::Body<'static>),
    /// Imgwire failed, or the gate did.
    #[response(status = 500)]
    Failed(#[to_schema] error::Body<'static>),
}

/// What every path that operators ask may answer besides.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it describes answers, and is none")]
pub(crate) enum ManagementRefusals {
    /// The request makes no sense.
    #[response(status = 400)]
    BadRequest(#[to_schema] error::Body<'static>),
    /// The management token is missing or wrong. If none is configured: the request does not come from this machine.
    #[response(status = 401, headers(("WWW-Authenticate" = String)))]
    Unauthenticated(#[to_schema] error::Body<'static>),
    /// `Host` names another host.
    #[response(status = 403)]
    Forbidden(#[to_schema] error::Body<'static>),
    /// There is no such thing.
    #[response(status = 404)]
    NotFound(#[to_schema] error::Body<'static>),
    /// The body is not JSON.
    #[response(status = 415)]
    UnsupportedMediaType(#[to_schema] error::Body<'static>),
    /// A store cannot tell.
    #[response(status = 500)]
    Failed(#[to_schema] error::Body<'static>),
}
