//! `/api/imgwire/session`: exchanges a credential for the gate's own session cookie.

use std::{sync::Arc, time::Duration};

use actix_session::Session;
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, Resource, http::Method, web};
use jiff::{SignedDuration, Timestamp};
use policies::{Denial, Fault, Presented, Subject, SubjectId};
use serde::Serialize;
use utoipa::ToSchema;

use super::{SESSION_PATH, refuse, worker};
use crate::{
    error::ApiError,
    identity::{SIGNED_IN, SignedIn},
    openapi::Refusals,
    request_id::RequestId,
    session_cookie::Begun,
};

/// Whose session it is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Session)]
pub(crate) struct Answer<'a> {
    /// Who is signed in.
    #[schema(value_type = String)]
    subject: &'a SubjectId,
    /// When it ends at the latest.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

pub(super) fn resource() -> Resource {
    web::resource(SESSION_PATH)
        .route(web::post().to(create))
        .route(web::get().to(show))
        .route(web::delete().to(end))
        .default_service(web::to(async |request: HttpRequest| {
            const ALLOWED: &[Method] = &[Method::GET, Method::POST, Method::DELETE];
            refuse(&request, &ApiError::MethodNotAllowed(ALLOWED))
        }))
}

/// Exchanges a credential for a session.
#[utoipa::path(
    post,
    path = "/api/imgwire/session",
    tag = "public",
    operation_id = "begin_session",
    security(("bearer" = []), ("session" = []), ()),
    responses(
        (status = 204, description = "The session's cookie", headers(("Set-Cookie" = String))),
        Refusals
    )
)]
pub(crate) async fn create(request: HttpRequest, session: Session) -> HttpResponse {
    let gate = &worker(&request).gate;
    let Some(cookie) = &gate.session else {
        return refuse(&request, &ApiError::NotFound);
    };
    let rules = gate.rules.load_full();
    let subject = match subject(&request, rules.identities.exchangeable(&request).await) {
        Ok(subject) => subject,
        Err(error) => return refuse(&request, &error),
    };
    let id = RequestId::of(&request);
    let now = gate.clock.now();
    let signed_in = SignedIn {
        subject: subject.id.clone(),
        identity: subject.identity.clone(),
        claims: rules.session_claims.of(&subject.claims),
        expires_at: end_of_session(&subject, now, cookie.ttl()),
        seen_at: now,
    };
    // What browsers would not keep is not begun.
    if let Err(error) = cookie.check(&signed_in) {
        tracing::error!(
            request_id = id.as_str(),
            subject = subject.id.as_str(),
            identity = subject.identity.as_str(),
            %error,
            "session refused"
        );
        return refuse(&request, &ApiError::Internal);
    }
    session.renew();
    // Nothing of an earlier session goes on.
    session.clear();
    if let Err(error) = session.insert(SIGNED_IN, signed_in) {
        tracing::error!(request_id = id.as_str(), %error, "session refused");
        return refuse(&request, &ApiError::Internal);
    }
    request
        .extensions_mut()
        .insert(Begun(subject.id.clone(), subject.identity.clone()));
    HttpResponse::NoContent().finish()
}

/// Says whose session it is.
#[utoipa::path(
    get,
    path = "/api/imgwire/session",
    tag = "public",
    operation_id = "show_session",
    security(("bearer" = []), ("session" = []), ()),
    responses(
        (status = 200, description = "Whose it is", body = Answer),
        Refusals
    )
)]
pub(crate) async fn show(request: HttpRequest) -> HttpResponse {
    let rules = worker(&request).gate.rules.load();
    match subject(&request, rules.identities.session(&request)) {
        Ok(subject) => HttpResponse::Ok().json(Answer {
            subject: &subject.id,
            expires_at: subject.expires_at,
        }),
        Err(error) => refuse(&request, &error),
    }
}

/// Ends the session.
#[utoipa::path(
    delete,
    path = "/api/imgwire/session",
    tag = "public",
    operation_id = "end_session",
    security(("bearer" = []), ("session" = []), ()),
    responses(
        (status = 204, description = "It is over"),
        Refusals
    )
)]
pub(crate) async fn end(request: HttpRequest, session: Session) -> HttpResponse {
    let rules = worker(&request).gate.rules.load();
    match subject(&request, rules.identities.session(&request)) {
        // Of two cookies neither is the session, so none would end.
        Err(error @ ApiError::Denied(Denial::InvalidCredentials(_)))
            if !session.contains_key(SIGNED_IN) =>
        {
            return refuse(&request, &error);
        }
        Err(error @ (ApiError::Denied(Denial::CrossSite(_)) | ApiError::Internal)) => {
            return refuse(&request, &error);
        }
        // A session that is no longer accepted can be ended, too.
        Ok(_) | Err(_) => session.purge(),
    }
    HttpResponse::NoContent().finish()
}

/// Who presented a good credential.
fn subject(
    request: &HttpRequest,
    presented: Result<Presented, Fault>,
) -> Result<Arc<Subject>, ApiError> {
    match presented {
        Ok(Presented::Subject(subject)) => Ok(subject),
        Ok(Presented::Refused(denial)) => Err(ApiError::Denied(denial)),
        Ok(Presented::Nothing) => Err(ApiError::Denied(Denial::NotSignedIn)),
        Err(fault) => {
            let id = RequestId::of(request);
            tracing::error!(request_id = id.as_str(), error = %fault, "the credential cannot be judged");
            Err(ApiError::Internal)
        }
    }
}

/// A session lasts as long as the config says, but no longer than the credential that it is exchanged for.
fn end_of_session(subject: &Subject, now: Timestamp, ttl: Duration) -> Timestamp {
    let ttl = SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX);
    let end = now.saturating_add(ttl).unwrap_or(Timestamp::MAX);
    subject
        .expires_at
        .map_or(end, |expires_at| end.min(expires_at))
}
