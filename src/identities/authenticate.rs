//! The configured identities, and which of them judges a request.

use std::{cell::Cell, sync::Arc};

use futures_util::future::join_all;
use policies::{
    AcceptedIdentities, BoxFuture, Credentials, Denial, Fault, IdentityName, Presented, Reads,
    Subject,
};

use super::{
    case::Case,
    claims::KeptClaims,
    credential::TokenSource,
    cross_site::CrossSite,
    keys::{KeysState, PublishedKeys},
    kind::{BuildContext, Identity},
    limits::{Attempt, Limited, ServerLimits},
    registry::ResolvedIdentity,
    request_view::PresentedCredentials,
    token::Token,
};
use crate::{config::session::SessionSettings, outbound::Outbound};

/// The configured identities, in the order of the file.
pub struct Identities {
    entries: Vec<Entry>,
    /// Where the sessions are among them.
    sessions: Vec<usize>,
    /// Where those are whose credentials may be exchanged for a session, in the order of the `exchange` lists.
    exchangeable: Vec<usize>,
    cross_site: CrossSite,
    limits: Arc<ServerLimits>,
}

struct Entry {
    name: IdentityName,
    identity: Arc<dyn Identity>,
}

/// There is no identity of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no identity `{0}`")]
pub struct UnknownIdentity(IdentityName);

impl Identities {
    /// Builds the identities of a config, which keep what `reads` says of the claims. Published keys that `earlier`
    /// identities fetched are kept. What they remembered is not, because they may have kept less of the claims.
    pub fn new(
        identities: &[(IdentityName, ResolvedIdentity)],
        session: Option<&SessionSettings>,
        cross_site: CrossSite,
        limits: &Arc<ServerLimits>,
        outbound: &Outbound,
        reads: &Reads,
        earlier: Option<&Self>,
    ) -> Self {
        let kept = KeptClaims::new(reads);
        let entries = identities.iter().map(|(name, resolved)| Entry {
            name: name.clone(),
            identity: resolved.build(&BuildContext {
                name,
                kept: &kept,
                outbound,
                session,
                earlier: earlier.and_then(|earlier| earlier.find(name)),
            }),
        });
        let (mut sessions, mut exchangeable) = (Vec::new(), Vec::new());
        for (position, (_, resolved)) in identities.iter().enumerate() {
            let Some(exchange) = resolved.profile().exchange else {
                continue;
            };
            sessions.push(position);
            for name in exchange {
                let found = identities.iter().position(|(other, _)| other == name);
                exchangeable.extend(found.filter(|found| !exchangeable.contains(found)));
            }
        }
        Self {
            entries: entries.collect(),
            sessions,
            exchangeable,
            cross_site,
            limits: limits.clone(),
        }
    }

    fn find(&self, name: &IdentityName) -> Option<&dyn Identity> {
        let entry = self.entries.iter().find(|entry| entry.name == *name)?;
        Some(&*entry.identity)
    }

    /// Finds the identities that a policy accepts.
    ///
    /// # Errors
    ///
    /// The first name that none of them has.
    pub fn accept(&self, names: &[IdentityName]) -> Result<AcceptedIdentities, UnknownIdentity> {
        let position = |name: &IdentityName| {
            let position = self.entries.iter().position(|entry| entry.name == *name);
            position.ok_or_else(|| UnknownIdentity(name.clone()))
        };
        let positions = names.iter().map(position).collect::<Result<Vec<_>, _>>()?;
        Ok(AcceptedIdentities::new(names.first().cloned(), positions))
    }

    /// Has the first identity that a credential addresses judge that credential, of those at `positions`.
    async fn judge(
        &self,
        positions: &[usize],
        presented: &dyn PresentedCredentials,
        limited: Limited,
    ) -> Result<Presented, Fault> {
        let accepted = positions.iter().filter_map(|at| self.entries.get(*at));
        let identities = accepted.clone().map(|entry| &*entry.identity);
        let is_claimed = |source: &TokenSource, token: &Token<'_>| {
            let mut identities = identities.clone();
            identities.any(|identity| identity.claims_token(source, token))
        };
        let sources = identities.clone().flat_map(Identity::token_sources);
        let is_counted = limited != Limited::Nothing;
        let limits = &self.limits;
        let attempt = Attempt::new(&limits.failures, presented, &limits.proxies, is_counted);
        let case = Case::new(presented, &self.cross_site, sources, &is_claimed, attempt);
        for Entry { name, identity } in accepted.clone() {
            match identity.judge(&case).get().await? {
                // Nothing addresses it.
                Presented::Nothing => {}
                Presented::Subject(subject) => return Ok(Presented::Subject(subject)),
                Presented::Refused(denial) => {
                    return Ok(Presented::Refused(Denial::Identity {
                        identity: name.clone(),
                        denial: Box::new(denial),
                    }));
                }
            }
        }
        Ok(unaddressed(accepted, &case))
    }

    /// Judges what is presented for the identities whose credentials may be exchanged for a session.
    ///
    /// # Errors
    ///
    /// If the identity that judges cannot decide.
    pub async fn exchangeable(
        &self,
        presented: &dyn PresentedCredentials,
    ) -> Result<Presented, Fault> {
        self.judge(&self.exchangeable, presented, Limited::Failures)
            .await
    }

    /// Judges the session that is presented: it is good if any identity accepts it.
    ///
    /// # Errors
    ///
    /// If it cannot be loaded.
    pub async fn session(&self, presented: &dyn PresentedCredentials) -> Result<Presented, Fault> {
        let mut judged = Presented::Nothing;
        for position in &self.sessions {
            let session = std::slice::from_ref(position);
            let presented = self.judge(session, presented, Limited::Nothing);
            judged = match presented.await? {
                Presented::Subject(subject) => return Ok(Presented::Subject(subject)),
                // The client asks about its session, whichever identity reads it.
                Presented::Refused(Denial::Identity { denial, .. }) => Presented::Refused(*denial),
                other => other,
            };
        }
        Ok(judged)
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
        self.entries
            .iter()
            .filter_map(|entry| Some((&entry.name, entry.identity.published_keys()?)))
    }

    /// The state of each published key set.
    pub fn keys(&self) -> impl Iterator<Item = (&IdentityName, KeysState)> {
        self.published_keys()
            .map(|(name, keys)| (name, keys.state()))
    }

    /// Keeps the published key sets up to date for as long as it is polled.
    pub async fn keep_keys(&self) {
        join_all(self.published_keys().map(|(_, keys)| keys.keep())).await;
    }
}

/// What is presented if nothing addresses any identity.
fn unaddressed<'a>(accepted: impl Iterator<Item = &'a Entry>, case: &Case<'_>) -> Presented {
    let mut reasons = Vec::new();
    for Entry { name, identity } in accepted {
        for token in case.tokens(identity.token_sources()) {
            let reason = identity.why_unaddressed(token);
            reasons.extend(reason.map(|reason| format!("identity `{name}`: {reason}")));
        }
    }
    if reasons.is_empty() {
        Presented::Nothing
    } else {
        Presented::Refused(Denial::InvalidCredentials(reasons.join("; ")))
    }
}

/// The credentials of one request, and the identities that judge them.
pub struct RequestCredentials<P> {
    presented: P,
    identities: Arc<Identities>,
    limited: Limited,
    /// Whether the request was counted as a read.
    is_read: Cell<bool>,
}

impl<P: PresentedCredentials> RequestCredentials<P> {
    /// Has `identities` judge what is presented, within the limits of the server.
    #[must_use]
    pub fn new(presented: P, identities: Arc<Identities>, limited: Limited) -> Self {
        Self {
            presented,
            identities,
            limited,
            is_read: Cell::new(false),
        }
    }
}

impl<P: PresentedCredentials> Credentials for RequestCredentials<P> {
    fn authenticate<'a>(&'a self, accept: &'a AcceptedIdentities) -> BoxFuture<'a, Presented> {
        Box::pin(async {
            let Self { identities, .. } = self;
            let judged = identities.judge(accept.positions(), &self.presented, self.limited);
            let presented = judged.await?;
            // However many policies of a chain judge it, a request is one read.
            if self.limited == Limited::Reads
                && let Presented::Subject(subject) = &presented
                && !self.is_read.replace(true)
                && let Err(denial) = identities.read(subject)
            {
                return Ok(Presented::Refused(denial));
            }
            Ok(presented)
        })
    }
}
