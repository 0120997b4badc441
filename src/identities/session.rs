//! `kind = "session"`: the gate's own session, a cookie of actix-session.

use std::{future::ready, sync::Arc, time::Duration};

use actix_session::Session;
use jiff::{SignedDuration, Timestamp, fmt::serde::timestamp::millisecond};
use policies::{Claims, Clock, Denial, IdentityName, Subject, SubjectId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    auth_request::AuthRequest,
    cookies::find_cookie,
    kind::{AuthError, Authentication, Build, Identity, IdentityKind, fault},
    profile::{Place, Profile},
    section::Section,
};
use crate::config::session::CookieName;

/// The key in the session of [`SignedIn`].
pub const SIGNED_IN: &str = "signed_in";

/// The key in the session of the reason why it could not be loaded. Such a session is never saved.
pub const UNAVAILABLE: &str = "unavailable";

/// The signed-in user, as the session stores it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SignedIn {
    #[serde(rename = "sub")]
    pub subject: SubjectId,
    /// The identity of the credential that was exchanged for the session.
    #[serde(rename = "idn")]
    pub identity: IdentityName,
    pub claims: Claims,
    /// At the latest when the exchanged credential expires.
    #[serde(rename = "exp", with = "millisecond::required")]
    pub expires_at: Timestamp,
    /// The last use, up to a tenth of `idle_ttl` late.
    #[serde(rename = "use", with = "millisecond::required")]
    pub seen_at: Timestamp,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot load the session: {0}")]
struct SessionUnavailable(String);

/// The gate's own session cookie.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionIdentitySettings {
    /// The identities whose credentials may be exchanged for a session. The gate denies a session from any other
    /// identity.
    #[schemars(length(min = 1))]
    exchange: Vec<IdentityName>,
}

impl IdentityKind for SessionIdentitySettings {
    const NAME: &'static str = "session";

    fn profile(&self) -> Profile<'_> {
        Profile {
            places: vec![Place::Session],
            exchange: Some(&self.exchange),
            ..Profile::default()
        }
    }

    fn resolve(self: Arc<Self>, section: &mut Section<'_>) -> Option<Build> {
        if section.others.has_session {
            self.check_exchange(section);
        } else {
            section.fault("", "needs the section [session]");
        }
        Some(Box::new(move |context| {
            let session = context.session;
            let idle_ttl = session.and_then(|session| session.idle_ttl);
            Arc::new(SessionIdentity {
                name: context.name.clone(),
                settings: self.clone(),
                cookie: session.map(|session| session.cookie.name.clone()),
                idle_ttl: idle_ttl.and_then(|ttl| SignedDuration::try_from(ttl.get()).ok()),
                clock: context.clock().clone(),
            })
        }))
    }
}

impl SessionIdentitySettings {
    fn check_exchange(&self, section: &mut Section<'_>) {
        const KEY: &str = "exchange";
        if self.exchange.is_empty() {
            section.fault(KEY, "must name at least one identity");
        }
        let profiles = section.profiles;
        let path = section.path_of(KEY);
        section.reader.names(&path, &self.exchange, |name| {
            let profile = profiles.find(name);
            let is_session = profile.is_some_and(|profile| profile.exchange.is_some());
            let message = "is a session, which cannot be exchanged for another one";
            is_session.then(|| format!("`{name}` {message}"))
        });
        if !section.has_fault(KEY) {
            profiles.check_shadowing(section.reader, &path, &self.exchange);
        }
    }
}

/// Reads the session cookie.
struct SessionIdentity {
    name: IdentityName,
    settings: Arc<SessionIdentitySettings>,
    /// `None` if the running gate has no sessions.
    cookie: Option<CookieName>,
    idle_ttl: Option<SignedDuration>,
    clock: Arc<dyn Clock>,
}

impl Identity for SessionIdentity {
    fn authenticate<'a>(&'a self, request: &'a AuthRequest<'_>) -> Authentication<'a> {
        Box::pin(ready(self.read(request)))
    }
}

impl SessionIdentity {
    fn read(&self, request: &AuthRequest<'_>) -> Result<Option<Arc<Subject>>, AuthError> {
        let Some(cookie) = &self.cookie else {
            return Ok(None);
        };
        if find_cookie(request.view().headers(), cookie.as_str())?.is_none() {
            return Ok(None);
        }
        request.check_origin()?;
        let session = request.view().session().ok_or(Denial::NotSignedIn)?;
        if let Ok(Some(reason)) = session.get::<String>(UNAVAILABLE) {
            return Err(fault(&self.name, SessionUnavailable(reason)).into());
        }
        // A cookie that was changed or encrypted with another key counts as none.
        let Ok(Some(mut signed_in)) = session.get::<SignedIn>(SIGNED_IN) else {
            return Err(Denial::NotSignedIn.into());
        };
        if !self.settings.exchange.contains(&signed_in.identity) {
            let reason = format!(
                "the session is from identity `{}`, which `exchange` does not have",
                signed_in.identity
            );
            return Err(Denial::InvalidCredentials(reason).into());
        }
        if let Some(ago) = self.expired_since(&signed_in) {
            return Err(Denial::CredentialsExpired(ago).into());
        }
        self.record_use(&session, &mut signed_in);
        Ok(Some(Arc::new(Subject {
            id: signed_in.subject,
            identity: signed_in.identity,
            session: true,
            claims: signed_in.claims,
            expires_at: Some(signed_in.expires_at),
        })))
    }

    /// How long the session is over, if it is.
    fn expired_since(&self, signed_in: &SignedIn) -> Option<Duration> {
        let now = self.clock.now();
        let idle = now.duration_since(signed_in.seen_at);
        let idle = self.idle_ttl.map(|idle_ttl| idle.saturating_sub(idle_ttl));
        let over = idle.max(Some(now.duration_since(signed_in.expires_at)))?;
        // A negative duration cannot be converted: the session goes on.
        Duration::try_from(over).ok()
    }

    /// Stores the use of a session, at most ten times in `idle_ttl`.
    fn record_use(&self, session: &Session, signed_in: &mut SignedIn) {
        let now = self.clock.now();
        let idle = now.duration_since(signed_in.seen_at);
        if self.idle_ttl.is_some_and(|idle_ttl| idle >= idle_ttl / 10) {
            signed_in.seen_at = now;
            if let Err(error) = session.insert(SIGNED_IN, &signed_in) {
                tracing::error!(%error, "cannot store the session");
            }
        }
    }
}
