//! `/api/imgwire/session`: exchanges a credential for the gate's own session cookie.

use std::{sync::Arc, time::Duration};

use actix_session::Session;
use actix_web::{HttpRequest, HttpResponse, Resource, http::Method, web};
use jiff::{SignedDuration, Timestamp};
use policies::{Denial, Fault, Presented, Subject, SubjectId};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    context::{SESSION_PATH, run_within_limit, worker},
    error::{ApiError, NO_ROUTE, PublicErrors, fail, refuse},
    reject_methods,
};
use crate::{
    identities::{SIGNED_IN, SignedIn},
    telemetry::LogFields,
};

/// The session.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Session)]
pub(crate) struct Answer<'a> {
    /// The id of the signed-in user.
    #[schema(value_type = String)]
    subject: &'a SubjectId,
    /// When the session ends at the latest.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

pub(super) fn resource() -> Resource {
    web::resource(SESSION_PATH)
        .route(web::post().to(create))
        .route(web::get().to(show))
        .route(web::delete().to(end))
        .default_service(reject_methods(&[Method::GET, Method::POST, Method::DELETE]))
}

/// Starts a session: exchanges a credential for a session cookie.
#[utoipa::path(
    post,
    path = "/api/imgwire/session",
    tag = "public",
    operation_id = "begin_session",
    security(("bearer" = []), ("session" = []), ()),
    responses(
        (status = 204, description = "The session has started", headers(("Set-Cookie" = String))),
        (status = 429, description = "A limit is reached", body = crate::http::error::Body, headers(("Retry-After" = u64))),
        PublicErrors
    )
)]
pub(crate) async fn create(request: HttpRequest, session: Session) -> HttpResponse {
    run_within_limit(&request, begin(&request, session)).await
}

async fn begin(request: &HttpRequest, session: Session) -> HttpResponse {
    let gate = &worker(request).gate;
    let Some(cookie) = &gate.session else {
        return refuse(request, &ApiError::NotFound(NO_ROUTE));
    };
    let rules = gate.rules.load_full();
    let subject = match subject(rules.identities.exchangeable(request).await) {
        Ok(subject) => subject,
        Err(not_signed_in) => return not_signed_in.response(request),
    };
    let now = gate.clock.now();
    let signed_in = SignedIn {
        subject: subject.id.clone(),
        identity: subject.identity.clone(),
        claims: rules.session_claims.of(&subject.claims),
        expires_at: session_end(&subject, now, cookie.ttl()),
        seen_at: now,
    };
    // Start no session that browsers would not keep.
    let started = match cookie.check(&signed_in) {
        Ok(()) => {
            session.renew();
            // Remove everything of an earlier session.
            session.clear();
            let inserted = session.insert(SIGNED_IN, signed_in);
            inserted.map_err(|error| fail(request, &error))
        }
        Err(error) => Err(fail(request, &error)),
    };
    let mut response = match started {
        Ok(()) => HttpResponse::NoContent().finish(),
        Err(failed) => failed,
    };
    LogFields::set_subject(&mut response, &subject);
    response
}

/// Returns the user of the session.
#[utoipa::path(
    get,
    path = "/api/imgwire/session",
    tag = "public",
    operation_id = "show_session",
    security(("bearer" = []), ("session" = []), ()),
    responses(
        (status = 200, description = "The session", body = Answer),
        (status = 429, description = "A limit is reached", body = crate::http::error::Body, headers(("Retry-After" = u64))),
        PublicErrors
    )
)]
pub(crate) async fn show(request: HttpRequest) -> HttpResponse {
    run_within_limit(&request, read(&request)).await
}

async fn read(request: &HttpRequest) -> HttpResponse {
    let identities = &worker(request).gate.rules.load().identities;
    let subject = match subject(identities.session(request).await) {
        Ok(subject) => subject,
        Err(not_signed_in) => return not_signed_in.response(request),
    };
    let mut response = match identities.count_read(&subject) {
        Ok(()) => HttpResponse::Ok().json(Answer {
            subject: &subject.id,
            expires_at: subject.expires_at,
        }),
        Err(denial) => refuse(request, &ApiError::Denied(denial)),
    };
    LogFields::set_subject(&mut response, &subject);
    response
}

/// Ends the session, and removes its cookie.
#[utoipa::path(
    delete,
    path = "/api/imgwire/session",
    tag = "public",
    operation_id = "end_session",
    security(("bearer" = []), ("session" = []), ()),
    responses(
        (status = 204, description = "The session has ended"),
        PublicErrors
    )
)]
pub(crate) async fn end(request: HttpRequest, session: Session) -> HttpResponse {
    run_within_limit(&request, sign_out(&request, &session)).await
}

async fn sign_out(request: &HttpRequest, session: &Session) -> HttpResponse {
    let rules = worker(request).gate.rules.load();
    let subject = subject(rules.identities.session(request).await);
    if let Err(error) = &subject {
        let is_refused = match error {
            NotSignedIn::Fault(_) => true,
            NotSignedIn::Denied(denial) => match denial.cause() {
                Denial::CrossSite(_) => true,
                // With two session cookies there is no session that could end.
                Denial::InvalidCredentials(_) => !session.contains_key(SIGNED_IN),
                _ => false,
            },
        };
        if is_refused {
            return error.response(request);
        }
    }
    // A session that is no longer accepted can still be ended.
    session.purge();
    let mut response = HttpResponse::NoContent().finish();
    if let Ok(subject) = &subject {
        LogFields::set_subject(&mut response, subject);
    }
    response
}

enum NotSignedIn {
    Denied(Denial),
    /// The credential could not be verified.
    Fault(Fault),
}

impl NotSignedIn {
    fn response(&self, request: &HttpRequest) -> HttpResponse {
        match self {
            Self::Denied(denial) => refuse(request, &ApiError::Denied(denial.clone())),
            Self::Fault(fault) => fail(request, fault),
        }
    }
}

fn subject(presented: Result<Presented, Fault>) -> Result<Arc<Subject>, NotSignedIn> {
    match presented {
        Ok(Presented::Subject(subject)) => Ok(subject),
        Ok(Presented::Refused(denial)) => Err(NotSignedIn::Denied(denial)),
        Ok(Presented::Nothing) => Err(NotSignedIn::Denied(Denial::NotSignedIn)),
        Err(fault) => Err(NotSignedIn::Fault(fault)),
    }
}

/// A session ends after `ttl`, or with the credential that started it if that expires earlier.
fn session_end(subject: &Subject, now: Timestamp, ttl: Duration) -> Timestamp {
    let ttl = SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX);
    let end = now.saturating_add(ttl).unwrap_or(Timestamp::MAX);
    subject
        .expires_at
        .map_or(end, |expires_at| end.min(expires_at))
}
