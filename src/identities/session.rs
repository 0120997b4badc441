//! `kind = "session"`: the gate's own session, a cookie of actix-session.

use std::sync::Arc;

use actix_session::Session;
use jiff::{SignedDuration, Timestamp, fmt::serde::timestamp::millisecond};
use policies::{Claims, Clock, Denial, Fault, IdentityName, Presented, Subject, SubjectId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    case::Case,
    credential::{self, Found},
    kind::{Build, Identity, IdentityKind, Judgement, fault},
    profile::{Place, Profile},
    section::Section,
};
use crate::config::session::CookieName;

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

/// The gate's own session cookie.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionIdentitySettings {
    /// The identities whose credentials may be exchanged for a session. A session that came from any other identity is
    /// not accepted.
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
        if section.facts.has_session {
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
    /// Sessions come from identities that exist and are no sessions themselves.
    fn check_exchange(&self, section: &mut Section<'_>) {
        const KEY: &str = "exchange";
        if self.exchange.is_empty() {
            section.fault(KEY, "must name at least one identity");
        }
        let profiles = section.profiles;
        let path = section.path_of(KEY);
        section.reader.names(&path, &self.exchange, |name| {
            let profile = profiles.find(name);
            if profile.is_some_and(|profile| profile.exchange.is_some()) {
                Some(format!(
                    "`{name}` is a session itself, which cannot start another one"
                ))
            } else {
                profiles.unknown(name)
            }
        });
        if !section.has_fault(KEY) {
            profiles.check_shadowing(section.reader, &path, &self.exchange);
        }
    }
}

/// Believes the session cookie.
struct SessionIdentity {
    name: IdentityName,
    settings: Arc<SessionIdentitySettings>,
    /// The session cookie of the running gate. Without one there are no sessions.
    cookie: Option<CookieName>,
    idle_ttl: Option<SignedDuration>,
    clock: Arc<dyn Clock>,
}

impl Identity for SessionIdentity {
    fn judge<'a>(&'a self, case: &'a Case<'_>) -> Judgement<'a> {
        Judgement::Now(self.read(case))
    }
}

impl SessionIdentity {
    fn read(&self, case: &Case<'_>) -> Result<Presented, Fault> {
        let Some(cookie) = &self.cookie else {
            return Ok(Presented::Nothing);
        };
        match credential::cookie(case.presented(), cookie.as_str()) {
            Found::Nothing => return Ok(Presented::Nothing),
            Found::Unusable(reason) => {
                let denial = Denial::InvalidCredentials(reason.to_owned());
                return Ok(Presented::Refused(denial));
            }
            Found::One(_) => {}
        }
        if let Err(denial) = case.check_origin() {
            return Ok(Presented::Refused(denial));
        }
        let Some(session) = case.presented().session() else {
            return Ok(Presented::Refused(Denial::NotSignedIn));
        };
        if let Ok(Some(reason)) = session.get::<String>(UNAVAILABLE) {
            return Err(fault(&self.name, SessionUnavailable(reason)));
        }
        // A cookie that was changed, or encrypted with another key, is like none.
        let Ok(Some(mut signed_in)) = session.get::<SignedIn>(SIGNED_IN) else {
            return Ok(Presented::Refused(Denial::NotSignedIn));
        };
        if !self.settings.exchange.contains(&signed_in.identity) {
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
