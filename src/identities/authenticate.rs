//! The identities of a config, and which of them authenticates a request.

use std::{cell::Cell, sync::Arc, time::Duration};

use futures_util::future::join_all;
use policies::{
    AcceptedIdentities, BoxFuture, Credentials, Denial, Fault, IdentityName, Presented, Reads,
    Subject, TokenOrigin,
};
use tokio::time::timeout;

use super::{
    auth_request::{AuthRequest, FoundTokens, Token},
    claims::ClaimFilter,
    cross_site::CrossSite,
    keys::{KeysState, PublishedKeys},
    kind::{AuthError, BuildContext, Identity},
    limits::{AppliedLimits, FailureTracker, ServerLimits},
    registry::ResolvedIdentity,
    request_view::{RequestView, TokenSource},
};
use crate::{config::session::SessionSettings, outbound::Outbound, telemetry::Point};

/// How long one identity may take to try what it depends on, in addition to its own limits.
const MAX_TRIAL: Duration = Duration::from_secs(30);

/// The identities of a config, in the order of the file.
pub struct Identities {
    entries: Vec<Entry>,
    /// The positions of the `session` identities.
    sessions: Vec<usize>,
    /// The positions of the identities in `exchange` lists, in the order of these lists.
    exchangeable: Vec<usize>,
    cross_site: CrossSite,
    limits: Arc<ServerLimits>,
}

struct Entry {
    name: IdentityName,
    identity: Arc<dyn Identity>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no identity `{0}`")]
pub struct UnknownIdentity(IdentityName);

impl Identities {
    /// Builds the identities, which keep the claims in `reads`. Reuses the published keys of `previous` identities, but not
    /// their caches, which may lack claims.
    pub fn new(
        identities: &[(IdentityName, ResolvedIdentity)],
        session: Option<&SessionSettings>,
        cross_site: CrossSite,
        limits: &Arc<ServerLimits>,
        outbound: &Outbound,
        reads: &Reads,
        previous: Option<&Self>,
    ) -> Self {
        let claim_filter = ClaimFilter::new(reads);
        let entries = identities.iter().map(|(name, resolved)| Entry {
            name: name.clone(),
            identity: resolved.build(&BuildContext {
                name,
                claim_filter: &claim_filter,
                outbound,
                session,
                previous: previous.and_then(|previous| previous.find(name)),
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
    /// The first unknown name.
    pub fn accept(&self, names: &[IdentityName]) -> Result<AcceptedIdentities, UnknownIdentity> {
        let position = |name: &IdentityName| {
            let position = self.entries.iter().position(|entry| entry.name == *name);
            position.ok_or_else(|| UnknownIdentity(name.clone()))
        };
        let positions = names.iter().map(position).collect::<Result<Vec<_>, _>>()?;
        Ok(AcceptedIdentities::new(names.first().cloned(), positions))
    }

    /// Authenticates the request with the first of the identities at `positions` that it has a credential for.
    async fn authenticate(
        &self,
        positions: &[usize],
        view: &dyn RequestView,
        limits: AppliedLimits,
    ) -> Result<Presented, Fault> {
        let accepted = positions.iter().filter_map(|at| self.entries.get(*at));
        let identities = accepted.clone().map(|entry| &*entry.identity);
        let is_claimed = |source: &TokenSource, token: &Token<'_>| {
            let mut identities = identities.clone();
            identities.any(|identity| identity.claims_token(source, token))
        };
        let sources = identities.clone().flat_map(Identity::token_sources);
        let failures = FailureTracker::new(&self.limits, view, limits);
        let found = FoundTokens::read(view, sources);
        let request = AuthRequest::new(view, &self.cross_site, &found, &is_claimed, failures);
        for Entry { name, identity } in accepted.clone() {
            match identity.authenticate(&request).await {
                Ok(None) => {}
                Ok(Some(subject)) => return Ok(Presented::Subject(subject)),
                Err(AuthError::Faulted(fault)) => return Err(fault),
                Err(AuthError::Denied(denial)) => {
                    return Ok(Presented::Refused(Denial::Identity {
                        identity: Some(name.clone()),
                        denial: Box::new(denial),
                        token: origin_of_token(&**identity, &request),
                    }));
                }
            }
        }
        Ok(without_match(accepted, &request))
    }

    /// Authenticates a request with the credentials that may be exchanged for a session.
    ///
    /// # Errors
    ///
    /// If the identity cannot decide.
    pub async fn exchangeable(&self, view: &dyn RequestView) -> Result<Presented, Fault> {
        self.authenticate(&self.exchangeable, view, AppliedLimits::Failures)
            .await
    }

    /// Authenticates a request with its session. The session is valid if any `session` identity accepts it.
    ///
    /// # Errors
    ///
    /// If the session cannot be loaded.
    pub async fn session(&self, view: &dyn RequestView) -> Result<Presented, Fault> {
        let mut result = Presented::Nothing;
        for position in &self.sessions {
            let session = std::slice::from_ref(position);
            let presented = self.authenticate(session, view, AppliedLimits::None);
            result = match presented.await? {
                Presented::Subject(subject) => return Ok(Presented::Subject(subject)),
                other => other,
            };
        }
        Ok(result)
    }

    /// Counts a read of `subject`.
    ///
    /// # Errors
    ///
    /// If the subject is past the limit.
    pub fn count_read(&self, subject: &Subject) -> Result<(), Denial> {
        self.limits.count_read(subject)
    }

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

    /// Tries what the identities depend on, for `doctor`: the points of each, below its section.
    pub async fn try_out(&self) -> Vec<Point> {
        let points = self.entries.iter().map(async |Entry { name, identity }| {
            let section = format!("identities.{name}");
            let points = timeout(MAX_TRIAL, identity.try_out()).await;
            let points = points.unwrap_or_else(|_| {
                let remedy = "look at the services that it depends on and the network to them";
                vec![Point::failed("", "no result in time", remedy)]
            });
            let points = points.into_iter();
            points
                .map(|point| point.within(&section))
                .collect::<Vec<_>>()
        });
        join_all(points).await.concat()
    }

    /// Keeps the published key sets up to date while it is polled.
    pub async fn refresh_keys(&self) {
        join_all(self.published_keys().map(|(_, keys)| keys.refresh())).await;
    }
}

/// The result for a request without a credential for any identity. Tokens in their places are a denial.
fn without_match<'a>(
    accepted: impl Iterator<Item = &'a Entry>,
    request: &AuthRequest<'_>,
) -> Presented {
    let mut reasons = Vec::new();
    let mut origin = None;
    for Entry { name, identity } in accepted {
        origin = origin.or_else(|| origin_of_token(&**identity, request));
        for token in request.tokens(identity.token_sources()) {
            let reason = identity.mismatch(token);
            reasons.extend(reason.map(|reason| format!("identity `{name}`: {reason}")));
        }
    }
    if reasons.is_empty() {
        Presented::Nothing
    } else {
        let reasons = reasons.join("; ");
        let reason = format!("no accepted identity is addressed: {reasons}");
        Presented::Refused(Denial::Identity {
            identity: None,
            denial: Box::new(Denial::InvalidCredentials(reason)),
            token: origin,
        })
    }
}

fn origin_of_token(identity: &dyn Identity, request: &AuthRequest<'_>) -> Option<Box<TokenOrigin>> {
    request.origin_of_token(identity.token_sources(), |source, token| {
        identity.claims_token(source, token)
    })
}

/// The credentials of one request, for the policies.
pub struct RequestCredentials<V> {
    view: V,
    identities: Arc<Identities>,
    limits: AppliedLimits,
    /// Whether the request was counted as a read.
    is_read: Cell<bool>,
}

impl<V: RequestView> RequestCredentials<V> {
    #[must_use]
    pub fn new(view: V, identities: Arc<Identities>, limits: AppliedLimits) -> Self {
        Self {
            view,
            identities,
            limits,
            is_read: Cell::new(false),
        }
    }
}

impl<V: RequestView> Credentials for RequestCredentials<V> {
    fn authenticate<'a>(&'a self, accept: &'a AcceptedIdentities) -> BoxFuture<'a, Presented> {
        Box::pin(async {
            let identities = &self.identities;
            let presented = identities.authenticate(accept.positions(), &self.view, self.limits);
            let presented = presented.await?;
            // Several policies may authenticate the request, but it is one read.
            if self.limits == AppliedLimits::FailuresAndReads
                && let Presented::Subject(subject) = &presented
                && !self.is_read.replace(true)
                && let Err(denial) = identities.count_read(subject)
            {
                return Ok(Presented::Refused(denial));
            }
            Ok(presented)
        })
    }
}
