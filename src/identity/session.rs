//! The gate's own session: a cookie of actix-session.

use std::sync::Arc;

use actix_session::Session;
use jiff::{SignedDuration, Timestamp, fmt::serde::timestamp::millisecond};
use policies::{Claims, Clock, Denial, Fault, IdentityName, Presented, Subject, SubjectId};
use serde::{Deserialize, Serialize};

use super::{
    cross_site::CrossSite,
    fault,
    lookup::{self, Found},
    request_view::RequestView,
};
use crate::settings::{SessionIdentitySettings, SessionSettings, session::CookieName};

/// Where a session keeps who is signed in.
pub const SIGNED_IN: &str = "signed_in";

/// Where a session that could not be loaded has the reason; such a session is never saved.
pub const UNAVAILABLE: &str = "unavailable";

/// Who is signed in, as the session keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SignedIn {
    /// Who.
    #[serde(rename = "sub")]
    pub subject: SubjectId,
    /// The identity whose credential the session was exchanged for.
    #[serde(rename = "idn")]
    pub identity: IdentityName,
    /// What policies may read about the subject.
    pub claims: Claims,
    /// Until when: never later than the credential that it was exchanged for.
    #[serde(rename = "exp", with = "millisecond::required")]
    pub expires_at: Timestamp,
    /// When it was used last, give or take a tenth of the time that it may be idle.
    #[serde(rename = "use", with = "millisecond::required")]
    pub seen_at: Timestamp,
}

/// The store of sessions failed, so it is unknown whether there is one.
#[derive(Debug, thiserror::Error)]
#[error("the session cannot be loaded: {0}")]
struct SessionUnavailable(String);

/// Believes the session cookie.
pub struct SessionIdentity {
    name: IdentityName,
    exchange: Vec<IdentityName>,
    cookie: CookieName,
    idle_ttl: Option<SignedDuration>,
    clock: Arc<dyn Clock>,
}

impl SessionIdentity {
    /// Looks for the session in the cookie of the settings.
    #[must_use]
    pub fn new(
        name: IdentityName,
        identity: &SessionIdentitySettings,
        session: &SessionSettings,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let exchange = identity.exchange.iter();
        Self {
            name,
            exchange: exchange.map(|name| name.clone()).collect(),
            cookie: session.cookie.name.clone(),
            idle_ttl: session
                .idle_ttl
                .and_then(|idle_ttl| SignedDuration::try_from(idle_ttl.get()).ok()),
            clock,
        }
    }

    /// The identities whose credentials may be exchanged for a session.
    pub(super) fn exchange(&self) -> &[IdentityName] {
        &self.exchange
    }

    fn exchanges(&self, identity: &IdentityName) -> bool {
        self.exchange.contains(identity)
    }

    /// # Errors
    ///
    /// If the session cannot be loaded.
    pub(super) fn present(
        &self,
        request: &dyn RequestView,
        cross_site: &CrossSite,
    ) -> Result<Presented, Fault> {
        match lookup::cookie(request, self.cookie.as_str()) {
            Found::Nothing => return Ok(Presented::Nothing),
            Found::Unusable(reason) => {
                let denial = Denial::InvalidCredentials(reason.to_owned());
                return Ok(Presented::Refused(denial));
            }
            Found::One(_) => {}
        }
        if let Err(denial) = cross_site.check(request) {
            return Ok(Presented::Refused(denial));
        }
        let Some(session) = request.session() else {
            return Ok(Presented::Refused(Denial::NotSignedIn));
        };
        if let Ok(Some(reason)) = session.get::<String>(UNAVAILABLE) {
            return Err(fault(&self.name, SessionUnavailable(reason)));
        }
        // A cookie that was changed, or encrypted with another key, is like none.
        let Ok(Some(mut signed_in)) = session.get::<SignedIn>(SIGNED_IN) else {
            return Ok(Presented::Refused(Denial::NotSignedIn));
        };
        if !self.exchanges(&signed_in.identity) {
            let reason = format!(
                "the session came from the identity `{}`, which `exchange` does not name",
                signed_in.identity
            );
            return Ok(Presented::Refused(Denial::InvalidCredentials(reason)));
        }
        if self.is_over(&signed_in) {
            return Ok(Presented::Refused(Denial::CredentialsExpired));
        }
        self.note_use(&session, &mut signed_in);
        Ok(Presented::Subject(Arc::new(Subject {
            id: signed_in.subject,
            identity: signed_in.identity,
            session: true,
            claims: signed_in.claims,
            expires_at: Some(signed_in.expires_at),
        })))
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
