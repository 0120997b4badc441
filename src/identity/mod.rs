//! Who a request comes from: one kind of identity, one file.

mod claims;
mod client_address;
mod cookies;
mod cross_site;
mod failures;
mod forwarded;
mod introspection;
mod jwt;
mod kept_claims;
mod key_set_source;
mod lookup;
mod published_keys;
mod remote;
mod request_view;
mod server_limits;
mod session;
mod token;

use std::{cell::Cell, sync::Arc};

use futures_util::future::{LocalBoxFuture, join_all};
use policies::{Credentials, Denial, Fault, IdentityName, Presented, Reads, Subject};

pub use self::{
    client_address::ClientAddress,
    cookies::Cookie as RequestCookie,
    cross_site::CrossSite,
    published_keys::KeysState,
    request_view::RequestView,
    server_limits::{Limited, ServerLimits},
    session::{SIGNED_IN, SessionIdentity, SignedIn, UNAVAILABLE},
};
use self::{
    failures::Attempt,
    forwarded::Forwarded,
    introspection::Introspection,
    jwt::{Jwt, Keys},
    kept_claims::KeptClaims,
    published_keys::PublishedKeys,
    remote::Remote,
    token::{Token, Tokens},
};
use crate::{
    outbound::Outbound,
    settings::{
        self,
        identities::{TokenSource, jwt::KeyMaterial},
    },
};

/// The configured identities, in the order of the file.
pub struct Identities {
    identities: Vec<(IdentityName, Identity)>,
    cross_site: CrossSite,
    limits: Arc<ServerLimits>,
}

enum Identity {
    Jwt(Box<Jwt>),
    Introspection(Box<Introspection>),
    Session(SessionIdentity),
    Forwarded(Box<Forwarded>),
    Remote(Box<Remote>),
}

impl Identities {
    /// Builds the identities of a config, which keep what `reads` says of the claims. Published keys that `earlier`
    /// identities fetched are kept. What they remembered is not, because they may have kept less of the claims.
    pub fn new(
        identities: &[(IdentityName, settings::Identity)],
        session: Option<&settings::SessionSettings>,
        cross_site: CrossSite,
        limits: &Arc<ServerLimits>,
        outbound: &Outbound,
        reads: &Reads,
        earlier: Option<&Self>,
    ) -> Self {
        let kept = KeptClaims::new(reads);
        let identities = identities
            .iter()
            .filter_map(|(name, settings)| {
                let identity = build(
                    name,
                    settings,
                    session,
                    &limits.proxies,
                    outbound,
                    &kept,
                    earlier,
                )?;
                Some((name.clone(), identity))
            })
            .collect();
        Self {
            identities,
            cross_site,
            limits: limits.clone(),
        }
    }

    /// Has the first identity of `accept` that a credential of `request` addresses judge that credential.
    ///
    /// # Errors
    ///
    /// If that identity cannot decide.
    pub async fn judge(
        &self,
        accept: &[IdentityName],
        request: &dyn RequestView,
        limited: Limited,
    ) -> Result<Presented, Fault> {
        let failures = &self.limits.failures;
        let is_counted = limited != Limited::Nothing;
        let attempt = Attempt::new(failures, request, &self.limits.proxies, is_counted);
        let named = |name| self.identities.iter().find(|(other, _)| other == name);
        let accepted = accept.iter().filter_map(named);
        let identities = accepted.clone().map(|(_, identity)| identity);
        let tokens = Tokens::new(
            request,
            &self.cross_site,
            identities.clone().flat_map(Identity::token_sources),
        );
        for (name, identity) in accepted {
            let presented = self.present(identity, &tokens, identities.clone(), &attempt);
            match presented.await? {
                // Nothing addresses it.
                Presented::Nothing => {}
                Presented::Subject(subject) => return Ok(Presented::Subject(subject)),
                Presented::Refused(denial) => {
                    return Ok(Presented::Refused(Denial::Judged {
                        identity: name.clone(),
                        denial: Box::new(denial),
                    }));
                }
            }
        }
        Ok(unaddressed(&tokens, identities))
    }

    /// Has `identity`, which is one of `accepted`, judge what addresses it, if anything does.
    async fn present<'a>(
        &self,
        identity: &Identity,
        tokens: &Tokens<'_>,
        accepted: impl Iterator<Item = &'a Identity> + Clone,
        attempt: &Attempt<'_>,
    ) -> Result<Presented, Fault> {
        let (request, cross_site) = (tokens.request(), &self.cross_site);
        Ok(match identity {
            Identity::Jwt(jwt) => {
                match tokens.find(jwt.from(), jwt.is_ambient(), |_, token| {
                    jwt.addressed_by(token)
                }) {
                    Ok(None) => Presented::Nothing,
                    Ok(Some((token, addressed))) => jwt.judge(token, addressed, attempt).await?,
                    Err(denial) => Presented::Refused(denial),
                }
            }
            Identity::Introspection(introspection) => {
                let is_opaque = |source: &TokenSource, token: &Token<'_>| {
                    let mut accepted = accepted.clone();
                    let is_taken = accepted.any(|other| other.takes_jwt(source, token));
                    (!is_taken).then_some(())
                };
                match tokens.find(introspection.from(), introspection.is_ambient(), is_opaque) {
                    Ok(None) => Presented::Nothing,
                    // Boxed, so that requests which ask no other service do not carry room for it.
                    Ok(Some((token, ()))) => Box::pin(introspection.judge(token, attempt)).await?,
                    Err(denial) => Presented::Refused(denial),
                }
            }
            Identity::Session(session) => session.present(request, cross_site)?,
            Identity::Forwarded(forwarded) => forwarded.present(request, cross_site),
            Identity::Remote(remote) => {
                Box::pin(remote.present(request, cross_site, attempt)).await?
            }
        })
    }

    fn sessions(&self) -> impl Iterator<Item = &SessionIdentity> {
        self.identities
            .iter()
            .filter_map(|(_, identity)| match identity {
                Identity::Session(session) => Some(session),
                _ => None,
            })
    }

    /// Judges what `request` presents for the identities whose credentials may be exchanged for a session, in the order
    /// of the `exchange` lists.
    ///
    /// # Errors
    ///
    /// If the identity that judges cannot decide.
    pub async fn exchangeable(&self, request: &dyn RequestView) -> Result<Presented, Fault> {
        let mut names: Vec<IdentityName> = Vec::new();
        for name in self.sessions().flat_map(SessionIdentity::exchange) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        self.judge(&names, request, Limited::Failures).await
    }

    /// Judges the session of `request`: it is good if any identity accepts it.
    ///
    /// # Errors
    ///
    /// When it cannot be loaded.
    pub fn session(&self, request: &dyn RequestView) -> Result<Presented, Fault> {
        let mut presented = Presented::Nothing;
        for session in self.sessions() {
            presented = session.present(request, &self.cross_site)?;
            if matches!(presented, Presented::Subject(_)) {
                break;
            }
        }
        Ok(presented)
    }

    /// Counts a read of `subject`.
    ///
    /// # Errors
    ///
    /// If the subject has read too often.
    pub fn read(&self, subject: &Subject) -> Result<(), Denial> {
        self.limits.read(subject)
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

impl Identity {
    /// Where it looks for tokens.
    fn token_sources(&self) -> &[TokenSource] {
        match self {
            Self::Jwt(jwt) => jwt.from(),
            Self::Introspection(introspection) => introspection.from(),
            Self::Session(_) | Self::Forwarded(_) | Self::Remote(_) => &[],
        }
    }

    /// Whether it is a `jwt` identity that a token in this place addresses.
    fn takes_jwt(&self, source: &TokenSource, token: &Token<'_>) -> bool {
        let Self::Jwt(jwt) = self else { return false };
        let mut from = jwt.from().iter();
        from.any(|own| own.is_same_place(source)) && jwt.addressed_by(token).is_some()
    }
}

/// What to answer if nothing addresses any of `identities`. Only a `jwt` identity can find a token that does not address
/// it.
fn unaddressed<'a>(
    tokens: &Tokens<'_>,
    identities: impl Iterator<Item = &'a Identity>,
) -> Presented {
    let reasons: Vec<_> = identities
        .filter_map(|identity| match identity {
            Identity::Jwt(jwt) => Some(jwt),
            _ => None,
        })
        .flat_map(|jwt| tokens.at(jwt.from()).map(|token| jwt.why_not(token)))
        .collect();
    if reasons.is_empty() {
        Presented::Nothing
    } else {
        Presented::Refused(Denial::InvalidCredentials(reasons.join("; ")))
    }
}

fn build(
    name: &IdentityName,
    settings: &settings::Identity,
    session: Option<&settings::SessionSettings>,
    proxies: &ClientAddress,
    outbound: &Outbound,
    kept: &KeptClaims,
    earlier: Option<&Identities>,
) -> Option<Identity> {
    let name = name.clone();
    Some(match settings {
        settings::Identity::Jwt(jwt, material) => {
            let keys = match material {
                KeyMaterial::Fixed(keys) => Keys::Fixed(keys.clone()),
                KeyMaterial::Set(set) => Keys::Set(set.clone()),
                KeyMaterial::Published(location) => {
                    let algorithms = &jwt.algorithms;
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
            Identity::Jwt(Box::new(Jwt::new(name, jwt, keys, kept.clone(), outbound)))
        }
        settings::Identity::Introspection(introspection, secret) => {
            Identity::Introspection(Box::new(Introspection::new(
                name,
                introspection,
                secret,
                kept.clone(),
                outbound,
            )))
        }
        settings::Identity::Session(identity) => Identity::Session(SessionIdentity::new(
            name,
            identity,
            session?,
            outbound.clock.clone(),
        )),
        settings::Identity::Forwarded(forwarded) => {
            Identity::Forwarded(Box::new(Forwarded::new(name, forwarded, proxies.clone())))
        }
        settings::Identity::Remote(remote) => {
            Identity::Remote(Box::new(Remote::new(name, remote, kept.clone(), outbound)))
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
    request: R,
    identities: Arc<Identities>,
    limited: Limited,
    /// Whether the request was counted as a read.
    is_read: Cell<bool>,
}

impl<R: RequestView> HttpCredentials<R> {
    /// What `request` presents for `identities`, within the limits of the server.
    #[must_use]
    pub fn new(request: R, identities: Arc<Identities>, limited: Limited) -> Self {
        Self {
            request,
            identities,
            limited,
            is_read: Cell::new(false),
        }
    }
}

impl<R: RequestView> Credentials for HttpCredentials<R> {
    fn judge<'a>(
        &'a self,
        accept: &'a [IdentityName],
    ) -> LocalBoxFuture<'a, Result<Presented, Fault>> {
        Box::pin(async {
            let judged = self.identities.judge(accept, &self.request, self.limited);
            let presented = judged.await?;
            // However many policies of a chain judge it, a request is one read.
            if self.limited == Limited::Reads
                && let Presented::Subject(subject) = &presented
                && !self.is_read.replace(true)
                && let Err(denial) = self.identities.read(subject)
            {
                return Ok(Presented::Refused(denial));
            }
            Ok(presented)
        })
    }
}
