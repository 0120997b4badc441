//! `/api/imgwire/session`: exchanges a credential for the gate's own session cookie.

use std::rc::Rc;

use actix_session::{
    Session, SessionMiddleware,
    config::{CookieContentSecurity, PersistentSession, TtlExtensionPolicy},
};
use actix_web::{
    Error as ActixError, HttpRequest, HttpResponse, Resource,
    body::MessageBody,
    cookie::{self, Key},
    dev::{ServiceRequest, ServiceResponse},
    http::{Method, header},
    middleware::Next,
    web,
};
use jiff::{SignedDuration, Timestamp};
use policies::{Denial, Presented, Subject, SubjectId};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use utoipa::ToSchema;

use super::{SESSION_PATH, refuse, worker};
use crate::{
    error::ApiError,
    identity::{KeyRotation, SIGNED_IN, SignedIn},
    openapi::Refusals,
    request_id::RequestId,
    session_store::Sessions,
    settings::{SessionSettings, session::SameSite},
};

/// Claims that are about the token rather than about its subject (RFC 7519, 4.1).
const REGISTERED_CLAIMS: [&str; 7] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"];

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

/// The middleware that reads and writes the cookie.
#[must_use]
pub fn middleware(
    settings: &SessionSettings,
    sessions: Sessions,
    key: &SecretString,
) -> SessionMiddleware<Sessions> {
    let cookie = settings.cookie.get_ref();
    let ttl = i64::try_from(settings.ttl.get().as_secs()).unwrap_or(i64::MAX);
    SessionMiddleware::builder(sessions, Key::from(key.expose_secret().as_bytes()))
        .cookie_name(cookie.name.as_str().to_owned())
        .cookie_secure(cookie.secure)
        .cookie_http_only(true)
        .cookie_same_site(match cookie.same_site {
            SameSite::Strict => cookie::SameSite::Strict,
            SameSite::Lax => cookie::SameSite::Lax,
            SameSite::None => cookie::SameSite::None,
        })
        .cookie_content_security(CookieContentSecurity::Private)
        .session_lifecycle(
            PersistentSession::default()
                .session_ttl(cookie::time::Duration::seconds(ttl))
                .session_ttl_extension_policy(TtlExtensionPolicy::OnStateChanges),
        )
        .build()
}

/// Lets cookies in that were encrypted with an earlier key.
///
/// # Errors
///
/// Those of what it wraps.
pub async fn rotate<B: MessageBody>(
    rotation: Option<Rc<KeyRotation>>,
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, ActixError> {
    if let Some(rotation) = rotation
        && let Some(cookies) = rotation.cookies_by_current_key(request.headers())
    {
        request.headers_mut().insert(header::COOKIE, cookies);
    }
    next.call(request).await
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
    let identities = gate.rules.load().identities.clone();
    let id = RequestId::of(&request);
    let subject = match identities.exchangeable(&request).await {
        Ok(Presented::Subject(subject)) => subject,
        Ok(Presented::Refused(denial)) => return refuse(&request, &ApiError::Denied(denial)),
        Ok(Presented::Nothing) => return refuse(&request, &ApiError::Denied(Denial::NotSignedIn)),
        Err(fault) => {
            tracing::error!(request_id = id.as_str(), error = %fault, "nobody can tell who asks");
            return refuse(&request, &ApiError::Internal);
        }
    };
    let now = gate.clock.now();
    let signed_in = SignedIn {
        expires_at: end_of_session(&subject, now, gate.session_ttl),
        seen_at: now,
        subject: without_registered_claims(&subject),
    };
    session.renew();
    if let Err(error) = session.insert(SIGNED_IN, signed_in) {
        tracing::error!(request_id = id.as_str(), %error, "the session cannot be written");
        return refuse(&request, &ApiError::Internal);
    }
    tracing::info!(
        request_id = id.as_str(),
        subject = subject.id.as_str(),
        identity = subject.identity.as_str(),
        "session begins"
    );
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
    match rules.identities.session(&request) {
        Presented::Subject(subject) => HttpResponse::Ok().json(Answer {
            subject: &subject.id,
            expires_at: subject.expires_at,
        }),
        Presented::Refused(denial) => refuse(&request, &ApiError::Denied(denial)),
        Presented::Nothing => refuse(&request, &ApiError::Denied(Denial::NotSignedIn)),
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
    let presented = rules.identities.session(&request);
    if let Presented::Refused(denial @ Denial::CrossSite(_)) = presented {
        return refuse(&request, &ApiError::Denied(denial));
    }
    session.purge();
    HttpResponse::NoContent().finish()
}

/// A session lasts as long as the config says, but no longer than the credential that it is exchanged for.
fn end_of_session(
    subject: &Subject,
    now: Timestamp,
    ttl: Option<std::time::Duration>,
) -> Timestamp {
    let ttl = SignedDuration::try_from(ttl.unwrap_or_default()).unwrap_or(SignedDuration::MAX);
    let end = now.saturating_add(ttl).unwrap_or(Timestamp::MAX);
    subject
        .expires_at
        .map_or(end, |expires_at| end.min(expires_at))
}

fn without_registered_claims(subject: &Subject) -> Subject {
    let mut subject = subject.clone();
    for claim in REGISTERED_CLAIMS {
        subject.claims.remove(claim);
    }
    subject
}
