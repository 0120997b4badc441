//! Who a request comes from: one identity, one file.

mod client_address;
mod cross_site;
mod jwt;
mod lookup;
mod session;

use std::sync::Arc;

use actix_web::HttpRequest;
use futures_util::future::{LocalBoxFuture, ready};
use policies::{Clock, Credentials, Fault, IdentityName, Presented};

pub use self::{
    client_address::ClientAddress,
    cross_site::CrossSite,
    jwt::Jwt,
    session::{SIGNED_IN, SessionIdentity, SignedIn},
};
use crate::settings;

/// The configured identities, in the order of the file.
pub struct Identities {
    identities: Vec<(IdentityName, Identity)>,
    cross_site: CrossSite,
}

enum Identity {
    Jwt(Box<Jwt>),
    Session(SessionIdentity),
}

impl Identities {
    /// Builds the identities of a config.
    pub fn new(
        identities: &[(IdentityName, settings::Identity)],
        session: Option<&settings::SessionSettings>,
        cross_site: CrossSite,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let identities = identities
            .iter()
            .filter_map(|(name, settings)| {
                let identity = match settings {
                    settings::Identity::Jwt(jwt, key) => {
                        let jwt = Jwt::new(name.clone(), jwt, key.clone(), clock.clone());
                        Identity::Jwt(Box::new(jwt))
                    }
                    settings::Identity::Session => Identity::Session(SessionIdentity::new(
                        name.clone(),
                        session?.cookie.name.clone(),
                        clock.clone(),
                    )),
                };
                Some((name.clone(), identity))
            })
            .collect();
        Self {
            identities,
            cross_site,
        }
    }

    /// Judges what `request` presents for the identity `name`.
    fn present(&self, name: &IdentityName, request: &HttpRequest) -> Presented {
        let identity = self.identities.iter().find(|(other, _)| other == name);
        match identity {
            Some((_, Identity::Jwt(jwt))) => jwt.present(request, &self.cross_site),
            Some((_, Identity::Session(session))) => session.present(request, &self.cross_site),
            None => Presented::Nothing,
        }
    }

    /// Judges what `request` presents for any identity but the session, in the order of the file.
    #[must_use]
    pub fn exchangeable(&self, request: &HttpRequest) -> Presented {
        self.identities
            .iter()
            .filter(|(_, identity)| !matches!(identity, Identity::Session(_)))
            .map(|(name, _)| self.present(name, request))
            .find(|presented| !matches!(presented, Presented::Nothing))
            .unwrap_or(Presented::Nothing)
    }

    /// Judges the session of `request`, if there are sessions.
    #[must_use]
    pub fn session(&self, request: &HttpRequest) -> Presented {
        let session = self
            .identities
            .iter()
            .find_map(|(_, identity)| match identity {
                Identity::Session(session) => Some(session),
                Identity::Jwt(_) => None,
            });
        session.map_or(Presented::Nothing, |session| {
            session.present(request, &self.cross_site)
        })
    }
}

/// What an HTTP request presents.
pub struct HttpCredentials {
    /// The request.
    pub request: HttpRequest,
    /// The identities that know what to look for in it.
    pub identities: Arc<Identities>,
}

impl Credentials for HttpCredentials {
    fn present<'a>(
        &'a self,
        name: &'a IdentityName,
    ) -> LocalBoxFuture<'a, Result<Presented, Fault>> {
        Box::pin(ready(Ok(self.identities.present(name, &self.request))))
    }
}
