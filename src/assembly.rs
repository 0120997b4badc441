//! Puts policies, chains and identities together, as the settings say.

use std::{cell::RefCell, sync::Arc};

use arc_swap::ArcSwap;
use policies::{
    Accept, Chain, Clock, Condition, Decider, FixedPurpose, IdentityName, Link, Lookup,
    Memberships, PolicyName, QuotaStore, RateLimit, RateLimitSettings, Reads, RemoteSettings,
    StoreName, WorkspaceMemberSettings,
    settings::{Messages, Mode, OnFailure, Ports},
};
use rustls::ClientConfig;
use secrecy::SecretString;

use crate::{
    cache::CacheShares,
    identities::{ClientAddress, CrossSite, Identities, ServerLimits},
    imgwire::Upstream,
    in_flight::InFlight,
    lookups::{HttpDecider, HttpMemberships, SqlMemberships, Turns},
    outbound::{HttpClient, Outbound},
    routes::{BodyLimits, Gate},
    rules::{Route, Rules},
    session_cookie::SessionCookie,
    settings::{self, ServerSettings, SessionSettings, Settings},
    stores::{self, OpenStore},
    telemetry::{Metrics, Traces},
};

/// What rules are built on, and what stays the same from a gate's start to its end.
pub(crate) struct Foundation {
    server: ServerSettings,
    session: Option<(SessionSettings, Arc<SessionCookie>)>,
    client_address: ClientAddress,
    limits: Arc<ServerLimits>,
    outbound: Outbound,
    turns: Arc<Turns>,
    stores: stores::Surroundings,
    upstream: Arc<Upstream>,
}

impl Foundation {
    pub(crate) fn new(
        settings: &Settings,
        tls: &Arc<ClientConfig>,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let session = settings.session.as_ref().map(|(session, keys)| {
            let cookie = SessionCookie::new(session, keys);
            (session.clone(), Arc::new(cookie))
        });
        let metrics = Arc::<Metrics>::default();
        let client_address = ClientAddress::new(&settings.server);
        Self {
            server: settings.server.clone(),
            session,
            limits: Arc::new(ServerLimits::new(&settings.server, &client_address, clock)),
            client_address,
            outbound: Outbound {
                http: HttpClient::new(tls.clone(), clock.clone()),
                clock: clock.clone(),
                metrics: metrics.clone(),
                caches: CacheShares::default(),
            },
            turns: Arc::default(),
            stores: stores::Surroundings {
                tls: tls.clone(),
                clock: clock.clone(),
                metrics: metrics.clone(),
            },
            upstream: Upstream::new(&settings.imgwire, clock, &metrics),
        }
    }

    /// Whether sessions can be had.
    pub(crate) fn has_session(&self) -> bool {
        self.session.is_some()
    }

    /// Begins to send traces, if the settings say where to.
    pub(crate) fn traces(&self, settings: &Settings) -> Result<Option<Traces>, String> {
        let otlp = settings.telemetry.otlp.as_ref();
        otlp.map(|otlp| Traces::start(otlp.as_str(), &self.outbound))
            .transpose()
    }

    /// What stores are opened with.
    pub(crate) fn stores(&self) -> &stores::Surroundings {
        &self.stores
    }

    /// Puts `rules` in force.
    pub(crate) fn gate(&self, rules: Rules, traces: Option<Traces>, in_flight: &InFlight) -> Gate {
        Gate {
            rules: ArcSwap::from_pointee(rules),
            client_address: self.client_address.clone(),
            body_limits: BodyLimits {
                bytes: self.server.body_limit.bytes(),
                time: self.server.request_timeout.get(),
            },
            session: self.session.as_ref().map(|(_, cookie)| cookie.clone()),
            in_flight: in_flight.clone(),
            upstream: self.upstream.clone(),
            metrics: self.outbound.metrics.clone(),
            traces,
            clock: self.outbound.clock.clone(),
        }
    }

    /// Builds the policies, the chains of the routes and the identities of `settings`, on stores that are open.
    /// What `earlier` rules have counted, fetched and learnt goes on where nothing was changed.
    pub(crate) fn rules(
        &self,
        settings: &Settings,
        stores: Vec<OpenStore>,
        earlier: Option<&Rules>,
    ) -> Rules {
        let clock = &self.outbound.clock;
        let outbound = Outbound {
            caches: CacheShares::of(settings),
            ..self.outbound.clone()
        };
        let claims = self.kept_claims(settings);
        let identities = Arc::new(Identities::new(
            &settings.identities,
            self.session.as_ref().map(|(session, _)| session),
            CrossSite::new(&self.server, &self.client_address),
            &self.limits,
            &outbound,
            &claims,
            earlier.map(|earlier| &*earlier.identities),
        ));
        let surroundings = Surroundings {
            settings,
            identities: &identities,
            stores: &stores,
            outbound: &outbound,
            turns: &self.turns,
            earlier,
            rate_limits: RefCell::default(),
        };
        let links: Vec<Link> = settings
            .policies
            .iter()
            .map(|(name, common, kind)| Link {
                name: name.clone(),
                kind: kind.name(),
                mode: common.mode,
                on_failure: kind.on_failure(),
                when: common
                    .when
                    .clone()
                    .map(|when| Condition::new(when, clock.clone())),
                counting: kind.counting(),
                policy: kind.build(name, clock, &surroundings),
            })
            .collect();
        let link = |name: &PolicyName| {
            let link = links.iter().find(|link| link.name == *name);
            link.expect("every policy that is named exists, as the settings check")
                .clone()
        };
        let messages: Arc<[(PolicyName, Messages)]> = settings
            .policies
            .iter()
            .filter_map(|(name, common, _)| Some((name.clone(), common.message.clone()?)))
            .collect();
        let routes = settings.routes.iter().map(|route| {
            Arc::new(Route {
                path: route.path.clone(),
                purpose: route.purpose.clone(),
                chain: chain(route, route.policies.iter().map(link).collect()),
                messages: messages.clone(),
                identities: identities.clone(),
            })
        });
        Rules {
            routes: routes.collect(),
            policies: links
                .iter()
                .map(|link| (link.name.clone(), link.policy.clone()))
                .collect(),
            rate_limits: surroundings.rate_limits.take(),
            identities,
            session_claims: claims,
            stores,
        }
    }

    /// What is kept of a subject's claims: all that policies read, and what `[session] claims` names.
    fn kept_claims(&self, settings: &Settings) -> Reads {
        let mut reads = settings.claims();
        let named = self.session.iter().flat_map(|(session, _)| &session.claims);
        for claim in named {
            reads.merge(Reads::claim(claim));
        }
        reads
    }
}

/// What the policies get from outside.
struct Surroundings<'a> {
    settings: &'a Settings,
    identities: &'a Identities,
    stores: &'a [OpenStore],
    outbound: &'a Outbound,
    turns: &'a Arc<Turns>,
    earlier: Option<&'a Rules>,
    /// Those that were asked for.
    rate_limits: RefCell<Vec<(PolicyName, RateLimitSettings, Arc<RateLimit>)>>,
}

impl Surroundings<'_> {
    fn token(&self, policy: &PolicyName) -> Option<&SecretString> {
        let tokens = &self.settings.policy_tokens;
        let token = tokens.iter().find(|(name, _)| name == policy);
        token.map(|(_, token)| token)
    }

    fn open(&self, wanted: &StoreName) -> &OpenStore {
        let store = self.stores.iter().find(|store| store.name == *wanted);
        store.expect("every store that is named exists, as the settings check")
    }
}

impl Ports for Surroundings<'_> {
    fn accept(&self, names: &[IdentityName]) -> Accept {
        let accept = self.identities.accept(names);
        accept.expect("every identity that is named exists, as the settings check")
    }

    fn store(&self, wanted: &StoreName) -> Arc<dyn QuotaStore> {
        self.open(wanted)
            .quotas()
            .expect("a store that a quota names is opened for quotas")
    }

    fn memberships(
        &self,
        name: &PolicyName,
        lookup: Lookup<'_>,
        settings: &WorkspaceMemberSettings,
    ) -> Arc<dyn Memberships> {
        match lookup {
            Lookup::Url(url) => {
                let token = self.token(name);
                let name = name.clone();
                Arc::new(HttpMemberships::new(
                    name,
                    url,
                    settings,
                    token,
                    self.turns,
                    self.outbound,
                ))
            }
            Lookup::Query { store, query } => {
                let database = self.open(store).memberships();
                let database =
                    database.expect("a store that a membership names is opened for memberships");
                let store = store.clone();
                let name = name.clone();
                Arc::new(SqlMemberships::new(
                    name,
                    store,
                    database,
                    query,
                    settings,
                    self.turns,
                    self.outbound,
                ))
            }
        }
    }

    fn decider(&self, name: &PolicyName, settings: &RemoteSettings) -> Arc<dyn Decider> {
        let token = self.token(name);
        Arc::new(HttpDecider::new(
            name.clone(),
            settings,
            token,
            self.outbound,
        ))
    }

    fn rate_limit(
        &self,
        name: &PolicyName,
        settings: &RateLimitSettings,
        clock: &Arc<dyn Clock>,
    ) -> Arc<RateLimit> {
        let earlier = self
            .earlier
            .into_iter()
            .flat_map(|rules| &rules.rate_limits);
        let earlier = earlier.into_iter().find(|(other, ..)| other == name);
        let store = settings.store.as_ref();
        // Where nothing is to be counted, there is none.
        let store = store.and_then(|name| self.open(name).rate_limits());
        let clock = clock.clone();
        let limit = match earlier {
            Some((_, same, limit)) if same == settings && store.is_none() => limit.clone(),
            Some((_, _, limit)) => Arc::new(limit.changed(settings, store, clock)),
            None => Arc::new(RateLimit::new(name.clone(), settings, store, clock)),
        };
        let entry = (name.clone(), settings.clone(), limit.clone());
        self.rate_limits.borrow_mut().push(entry);
        limit
    }
}

/// The policies of a route in their order. Those of a route with a purpose refuse another one, as soon as it is
/// known who asks.
fn chain(route: &settings::Route, mut links: Vec<Link>) -> Chain {
    if let Some(purpose) = &route.purpose {
        let signed_in = links.iter().rposition(|link| link.kind == "signed_in");
        let link = Link {
            name: PolicyName::parse("purpose").expect("the text is a valid name"),
            kind: "purpose",
            mode: Mode::Enforce,
            on_failure: OnFailure::Deny,
            when: None,
            counting: None,
            policy: Arc::new(FixedPurpose(purpose.clone())),
        };
        links.insert(signed_in.map_or(0, |index| index + 1), link);
    }
    Chain::new(links)
}
