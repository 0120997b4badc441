//! Who a request comes from: one kind of identity, one file.

mod claims;
mod client_address;
mod cross_site;
mod forwarded;
mod introspection;
mod jwt;
mod lookup;
mod published_keys;
mod remote;
mod request_view;
mod session;
mod session_keys;

use std::sync::Arc;

use futures_util::future::{LocalBoxFuture, join_all};
use policies::{Credentials, Fault, IdentityName, Presented};

pub use self::{
    client_address::ClientAddress,
    cross_site::CrossSite,
    published_keys::KeysState,
    request_view::RequestView,
    session::{SIGNED_IN, SessionIdentity, SignedIn},
    session_keys::KeyRotation,
};
use self::{
    forwarded::Forwarded,
    introspection::Introspection,
    jwt::{Jwt, Keys},
    published_keys::PublishedKeys,
    remote::Remote,
};
use crate::{
    outbound::Outbound,
    settings::{self, identities::jwt::KeyMaterial},
};

/// The configured identities, in the order of the file.
pub struct Identities {
    identities: Vec<(IdentityName, Identity)>,
    cross_site: CrossSite,
}

enum Identity {
    Jwt(Box<Jwt>),
    Introspection(Box<Introspection>),
    Session(SessionIdentity),
    Forwarded(Box<Forwarded>),
    Remote(Box<Remote>),
}

impl Identities {
    /// Builds the identities of a config. Published keys that `earlier` identities fetched are kept.
    pub fn new(
        identities: &[(IdentityName, settings::Identity)],
        session: Option<&settings::SessionSettings>,
        cross_site: CrossSite,
        proxies: &ClientAddress,
        outbound: &Outbound,
        earlier: Option<&Self>,
    ) -> Self {
        let identities = identities
            .iter()
            .filter_map(|(name, settings)| {
                let identity = build(name, settings, session, proxies, outbound, earlier)?;
                Some((name.clone(), identity))
            })
            .collect();
        Self {
            identities,
            cross_site,
        }
    }

    /// Judges what `request` presents for the identity `name`.
    async fn present(
        &self,
        name: &IdentityName,
        request: &dyn RequestView,
    ) -> Result<Presented, Fault> {
        let identity = self.identities.iter().find(|(other, _)| other == name);
        let Some((_, identity)) = identity else {
            return Ok(Presented::Nothing);
        };
        match identity {
            Identity::Jwt(jwt) => jwt.present(request, &self.cross_site).await,
            // Boxed, so that requests which ask nobody do not carry room for it.
            Identity::Introspection(introspection) => {
                Box::pin(introspection.present(request, &self.cross_site)).await
            }
            Identity::Session(session) => Ok(session.present(request, &self.cross_site)),
            Identity::Forwarded(forwarded) => Ok(forwarded.present(request, &self.cross_site)),
            Identity::Remote(remote) => Box::pin(remote.present(request, &self.cross_site)).await,
        }
    }

    /// Judges what `request` presents for any identity but the session, in the order of the file.
    ///
    /// # Errors
    ///
    /// When an identity cannot tell.
    pub async fn exchangeable(&self, request: &dyn RequestView) -> Result<Presented, Fault> {
        for (name, identity) in &self.identities {
            if matches!(identity, Identity::Session(_)) {
                continue;
            }
            match self.present(name, request).await? {
                Presented::Nothing => {}
                presented => return Ok(presented),
            }
        }
        Ok(Presented::Nothing)
    }

    /// Judges the session of `request`, if there are sessions.
    #[must_use]
    pub fn session(&self, request: &dyn RequestView) -> Presented {
        let session = self
            .identities
            .iter()
            .find_map(|(_, identity)| match identity {
                Identity::Session(session) => Some(session),
                _ => None,
            });
        session.map_or(Presented::Nothing, |session| {
            session.present(request, &self.cross_site)
        })
    }

    /// The key sets that issuers publish.
    fn published_keys(&self) -> impl Iterator<Item = (&IdentityName, &Arc<PublishedKeys>)> {
        self.identities
            .iter()
            .filter_map(|(name, identity)| match identity {
                Identity::Jwt(jwt) => match jwt.keys() {
                    Keys::Published(keys) => Some((name, keys)),
                    Keys::Fixed(_) | Keys::Set(_) => None,
                },
                _ => None,
            })
    }

    /// How each published key set stands.
    pub fn keys(&self) -> impl Iterator<Item = (&IdentityName, KeysState)> {
        self.published_keys()
            .map(|(name, keys)| (name, keys.state()))
    }

    /// Keeps the published key sets up to date for as long as it is polled.
    pub async fn keep_keys(&self) {
        join_all(self.published_keys().map(|(_, keys)| keys.keep())).await;
    }
}

fn build(
    name: &IdentityName,
    settings: &settings::Identity,
    session: Option<&settings::SessionSettings>,
    proxies: &ClientAddress,
    outbound: &Outbound,
    earlier: Option<&Identities>,
) -> Option<Identity> {
    let name = name.clone();
    Some(match settings {
        settings::Identity::Jwt(jwt, material) => {
            let keys = match material {
                KeyMaterial::Fixed(keys) => Keys::Fixed(keys.clone()),
                KeyMaterial::Set(set) => Keys::Set(set.clone()),
                KeyMaterial::Published(location) => {
                    let algorithms = jwt.algorithms.get_ref();
                    let earlier = earlier.and_then(|earlier| {
                        let mut published = earlier.published_keys();
                        let same = published.find(|(other, _)| **other == name);
                        same.filter(|(_, keys)| keys.are_of(location, algorithms))
                    });
                    Keys::Published(match earlier {
                        Some((_, keys)) => keys.clone(),
                        None => Arc::new(PublishedKeys::new(
                            name.clone(),
                            location.clone(),
                            algorithms.clone(),
                            outbound,
                        )),
                    })
                }
            };
            Identity::Jwt(Box::new(Jwt::new(name, jwt, keys, outbound.clock.clone())))
        }
        settings::Identity::Introspection(introspection, secret) => Identity::Introspection(
            Box::new(Introspection::new(name, introspection, secret, outbound)),
        ),
        settings::Identity::Session => {
            Identity::Session(SessionIdentity::new(name, session?, outbound.clock.clone()))
        }
        settings::Identity::Forwarded(forwarded) => {
            Identity::Forwarded(Box::new(Forwarded::new(name, forwarded, proxies.clone())))
        }
        settings::Identity::Remote(remote) => {
            Identity::Remote(Box::new(Remote::new(name, remote, outbound)))
        }
    })
}

/// Why an identity could not tell.
fn fault(identity: &IdentityName, error: impl std::error::Error + Send + Sync + 'static) -> Fault {
    Fault::Identity {
        identity: identity.clone(),
        source: Box::new(error),
    }
}

/// What an HTTP request presents.
pub struct HttpCredentials<R> {
    /// The request.
    pub request: R,
    /// The identities that know what to look for in it.
    pub identities: Arc<Identities>,
}

impl<R: RequestView> Credentials for HttpCredentials<R> {
    fn present<'a>(
        &'a self,
        name: &'a IdentityName,
    ) -> LocalBoxFuture<'a, Result<Presented, Fault>> {
        Box::pin(self.identities.present(name, &self.request))
    }
}
