//! The gate's own session: a cookie of actix-session.

use std::sync::Arc;

use actix_session::Session;
use jiff::{SignedDuration, Timestamp};
use policies::{Clock, Denial, IdentityName, Presented, Subject};
use serde::{Deserialize, Serialize};

use super::{
    cross_site::CrossSite,
    lookup::{self, Found},
    request_view::RequestView,
};
use crate::settings::{SessionSettings, session::CookieName};

/// Where a session keeps who is signed in.
pub const SIGNED_IN: &str = "signed_in";

/// Who is signed in, as the session keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SignedIn {
    /// Who.
    pub subject: Subject,
    /// Until when: never later than the credential that it was exchanged for.
    pub expires_at: Timestamp,
    /// When it was used last, give or take a tenth of the time that it may be idle.
    pub seen_at: Timestamp,
}

/// Believes the session cookie.
pub struct SessionIdentity {
    name: IdentityName,
    cookie: CookieName,
    idle_ttl: Option<SignedDuration>,
    clock: Arc<dyn Clock>,
}

impl SessionIdentity {
    /// Looks for the session in the cookie of the settings.
    #[must_use]
    pub fn new(name: IdentityName, settings: &SessionSettings, clock: Arc<dyn Clock>) -> Self {
        Self {
            name,
            cookie: settings.cookie.get_ref().name.clone(),
            idle_ttl: settings
                .idle_ttl
                .and_then(|idle_ttl| SignedDuration::try_from(idle_ttl.get()).ok()),
            clock,
        }
    }

    pub(super) fn present(&self, request: &dyn RequestView, cross_site: &CrossSite) -> Presented {
        match lookup::cookie(request, self.cookie.as_str()) {
            Found::Nothing => return Presented::Nothing,
            Found::Unusable(reason) => {
                return Presented::Refused(Denial::InvalidCredentials(reason.to_owned()));
            }
            Found::One(_) => {}
        }
        if let Err(denial) = cross_site.check(request) {
            return Presented::Refused(denial);
        }
        let Some(session) = request.session() else {
            return Presented::Refused(Denial::NotSignedIn);
        };
        match session.get::<SignedIn>(SIGNED_IN) {
            Ok(Some(signed_in)) if self.is_over(&signed_in) => {
                Presented::Refused(Denial::CredentialsExpired)
            }
            Ok(Some(mut signed_in)) => {
                self.note_use(&session, &mut signed_in);
                Presented::Subject(Arc::new(Subject {
                    identity: self.name.clone(),
                    expires_at: Some(signed_in.expires_at),
                    ..signed_in.subject
                }))
            }
            // A cookie that was changed, or encrypted with another key, is like none.
            Ok(None) | Err(_) => Presented::Refused(Denial::NotSignedIn),
        }
    }

    fn is_over(&self, signed_in: &SignedIn) -> bool {
        let now = self.clock.now();
        let was_idle = now.duration_since(signed_in.seen_at);
        now >= signed_in.expires_at || self.idle_ttl.is_some_and(|idle_ttl| was_idle >= idle_ttl)
    }

    /// Writes the use of a session into its cookie, ten times at most in the time that it may be idle.
    fn note_use(&self, session: &Session, signed_in: &mut SignedIn) {
        let now = self.clock.now();
        let was_idle = now.duration_since(signed_in.seen_at);
        if self
            .idle_ttl
            .is_some_and(|idle_ttl| was_idle >= idle_ttl / 10)
        {
            signed_in.seen_at = now;
            if let Err(error) = session.insert(SIGNED_IN, &signed_in) {
                tracing::error!(%error, "the session cannot be written");
            }
        }
    }
}
