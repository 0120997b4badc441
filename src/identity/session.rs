//! The gate's own session: a cookie of actix-session.

use std::sync::Arc;

use actix_session::SessionExt as _;
use actix_web::HttpRequest;
use jiff::Timestamp;
use policies::{Clock, Denial, IdentityName, Presented, Subject};
use serde::{Deserialize, Serialize};

use super::{
    cross_site::CrossSite,
    lookup::{self, Found},
};
use crate::settings::session::CookieName;

/// Where a session keeps who is signed in.
pub const SIGNED_IN: &str = "signed_in";

/// Who is signed in, as the session keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SignedIn {
    /// Who.
    pub subject: Subject,
    /// Until when: never later than the credential that it was exchanged for.
    pub expires_at: Timestamp,
}

/// Believes the session cookie.
pub struct SessionIdentity {
    name: IdentityName,
    cookie: CookieName,
    clock: Arc<dyn Clock>,
}

impl SessionIdentity {
    /// Looks for the session in `cookie`.
    #[must_use]
    pub fn new(name: IdentityName, cookie: CookieName, clock: Arc<dyn Clock>) -> Self {
        Self {
            name,
            cookie,
            clock,
        }
    }

    pub(super) fn present(&self, request: &HttpRequest, cross_site: &CrossSite) -> Presented {
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
        match request.get_session().get::<SignedIn>(SIGNED_IN) {
            Ok(Some(session)) if self.clock.now() < session.expires_at => {
                Presented::Subject(Arc::new(Subject {
                    identity: self.name.clone(),
                    expires_at: Some(session.expires_at),
                    ..session.subject
                }))
            }
            Ok(Some(_)) => Presented::Refused(Denial::CredentialsExpired),
            // A cookie that was changed, or encrypted with another key, is like none.
            Ok(None) | Err(_) => Presented::Refused(Denial::NotSignedIn),
        }
    }
}
