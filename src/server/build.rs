//! Builds the rules from the settings: policies, chains and identities.

use std::sync::Arc;

use arc_swap::ArcSwap;
use policies::{
    BuildContext, BuildError, Chain, Clock, Condition, Fact, FactExpression, FixedPurpose,
    ImgwireLimits, Link, PolicyName, Reads, StoreName,
};
use rustls::ClientConfig;

use super::{
    needs::needs,
    settings::{MetadataExpression, RouteSettings, Settings},
};
use crate::{
    config::{Messages, ServerSettings, SessionSettings},
    gate::{
        event_receiver::EventReceiver,
        idempotency::StoreSecret,
        ports::{LookupSlots, PolicyPorts},
        route_paths::{RouteAction, RoutePaths},
        rules::{ABANDON_AFTER, Action, Route, Rules, UploadRoute},
    },
    http::{BodyLimits, Gate, OperatorAccess, session_cookie::SessionCookie},
    identities::{CacheKind, ClientAddress, CrossSite, Identities, ServerLimits},
    imgwire::Upstream,
    outbound::in_flight::InFlight,
    outbound::{HttpClient, Outbound, cache::CacheCapacity},
    stores::{self, Access, ReadRate, RecordStore, Stores},
    telemetry::Metrics,
};

/// Builds rules. Everything in it stays the same when the config is reloaded.
pub(crate) struct RulesBuilder {
    server: ServerSettings,
    session: Option<(SessionSettings, Arc<SessionCookie>)>,
    client_address: ClientAddress,
    limits: Arc<ServerLimits>,
    outbound: Outbound,
    lookup_slots: Arc<LookupSlots>,
    stores: stores::StoreContext,
    upstream: Arc<Upstream>,
}

impl RulesBuilder {
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
                http: HttpClient::new(tls.clone(), clock.clone(), metrics.clone()),
                clock: clock.clone(),
                metrics: metrics.clone(),
                caches: CacheCapacity::default(),
            },
            lookup_slots: Arc::default(),
            stores: stores::StoreContext {
                tls: tls.clone(),
                clock: clock.clone(),
                metrics: metrics.clone(),
            },
            upstream: Upstream::new(&settings.imgwire, &settings.api_key, clock, &metrics),
        }
    }

    pub(crate) fn http(&self) -> &HttpClient {
        &self.outbound.http
    }

    pub(crate) fn has_session(&self) -> bool {
        self.session.is_some()
    }

    /// The store of the running gate's sessions. A reload does not change it.
    fn session_store(&self) -> Option<&StoreName> {
        let session = self.session.as_ref();
        session.and_then(|(session, _)| session.store.name())
    }

    pub(crate) fn stores(&self) -> &stores::StoreContext {
        &self.stores
    }

    pub(crate) fn gate(
        &self,
        rules: Rules,
        operators: OperatorAccess,
        in_flight: &InFlight,
    ) -> Gate {
        Gate {
            rules: ArcSwap::from_pointee(rules),
            client_address: self.client_address.clone(),
            body_limits: BodyLimits {
                bytes: self.server.body_limit.bytes(),
                time: self.server.request_timeout.get(),
            },
            session: self.session.as_ref().map(|(_, cookie)| cookie.clone()),
            operators: ArcSwap::from_pointee(operators),
            in_flight: in_flight.clone(),
            upstream: self.upstream.clone(),
            metrics: self.outbound.metrics.clone(),
            clock: self.outbound.clock.clone(),
        }
    }

    /// Builds rules on read-only stores. With `with_counters`, quotas see the counters of their stores; otherwise all
    /// counters are empty.
    pub(crate) fn build_read_only(
        &self,
        settings: &Settings,
        with_counters: bool,
    ) -> Result<Rules, BuildError> {
        let access = if with_counters {
            Access::ReadOnly
        } else {
            Access::Empty
        };
        let stores = Stores::open(settings.used_stores(), &self.stores, access);
        let stores = stores.map_err(|error| BuildError::Other(error.into()))?;
        self.build(settings, stores, None)
    }

    /// Builds the policies, the chains of the routes and the identities of `settings` on open stores. Unchanged parts
    /// keep the counters, keys and caches of the `earlier` rules.
    pub(crate) fn build(
        &self,
        settings: &Settings,
        stores: Stores,
        earlier: Option<&Rules>,
    ) -> Result<Rules, BuildError> {
        let clock = &self.outbound.clock;
        let outbound = Outbound {
            caches: cache_capacity(settings),
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
        let links: Vec<Link> = settings
            .policies
            .iter()
            .map(|(name, policy)| {
                let ports = PolicyPorts {
                    name,
                    token: policy.token.as_ref(),
                    identities: &identities,
                    stores: &stores,
                    outbound: &outbound,
                    lookup_slots: &self.lookup_slots,
                };
                let when = policy.common.when.clone();
                let context = BuildContext {
                    name,
                    clock,
                    ports: &ports,
                    earlier: earlier.and_then(|earlier| earlier.policy(name)).cloned(),
                };
                Ok(Link {
                    name: name.clone(),
                    kind: policy.kind.kind(),
                    mode: policy.common.mode,
                    on_failure: policy.on_failure(),
                    when: when.map(|when| Condition::new(when, clock.clone())),
                    provides: policy.requirements.provides,
                    counter_store: policy.requirements.counter_store(),
                    policy: policy.kind.build(context)?,
                })
            })
            .collect::<Result<_, BuildError>>()?;
        let messages: Arc<[(PolicyName, Messages)]> = settings
            .policies
            .iter()
            .filter_map(|(name, policy)| Some((name.clone(), policy.common.message.clone()?)))
            .collect();
        let records = settings
            .record_store()
            .map(|store| stores.records(store))
            .transpose()?;
        let receiver = settings.events.as_ref();
        let receiver = receiver.map(|(events, keys)| EventReceiver::new(events, keys));
        let receiver = receiver.transpose();
        let receiver = receiver.map_err(|error| BuildError::Other(error.into()))?;
        let routes = settings.routes.iter().map(|route| {
            let chain = chain(route, &links)?;
            let action = match route.action {
                RouteAction::Token => {
                    Action::Token(records.clone().filter(|_| route.store.is_some()))
                }
                RouteAction::Upload => {
                    let records = records.clone();
                    let records = records.ok_or_else(|| BuildError::Other(NO_STORE.into()))?;
                    Action::Upload(upload_route(route, &chain, records, clock))
                }
            };
            Ok(Arc::new(Route {
                path: route.path.clone(),
                paths: RoutePaths::new(&route.path, route.action),
                purpose: route.purpose.clone(),
                chain,
                messages: messages.clone(),
                identities: identities.clone(),
                action,
            }))
        });
        Ok(Rules {
            routes: routes.collect::<Result<_, BuildError>>()?,
            policies: links
                .into_iter()
                .map(|link| (link.name, link.policy))
                .collect(),
            identities,
            session_claims: claims,
            needs: needs(settings, self.session_store()),
            stores,
            records,
            keep_records: settings.uploads.keep_records,
            reads: ReadRate {
                limit: settings.uploads.reads.limit.get(),
                period: settings.uploads.reads.period.get(),
            },
            sends_events: receiver.is_some(),
            receiver: receiver.map(Arc::new),
        })
    }

    /// The claims of a subject to keep: those that policies read and those in `[session] claims`.
    fn kept_claims(&self, settings: &Settings) -> Reads {
        let mut reads = settings.claims();
        let configured = self.session.iter().flat_map(|(session, _)| &session.claims);
        for claim in configured {
            reads.merge(Reads::claim(claim));
        }
        reads
    }
}

pub(crate) fn operator_access(settings: &Settings) -> OperatorAccess {
    OperatorAccess {
        token: settings.management_token.clone(),
        hosts: settings.management.hosts.clone(),
    }
}

/// Divides the memory for caches among the identities and policies that have one.
fn cache_capacity(settings: &Settings) -> CacheCapacity {
    let identities = settings.identities.iter();
    let caches: Vec<_> = identities
        .map(|(_, identity)| identity.profile().cache)
        .collect();
    let count = |kind| caches.iter().filter(|cache| **cache == Some(kind)).count();
    let policies = settings.policies.iter();
    let asking = policies.filter(|(_, policy)| policy.is_remote()).count();
    CacheCapacity::divided(
        count(CacheKind::Tokens),
        count(CacheKind::Responses) + asking,
    )
}

/// The policies of a route in order. As soon as the user is known, a route with a purpose denies other purposes, and an
/// upload route what Imgwire does not support.
fn chain(route: &RouteSettings, links: &[Link]) -> Result<Chain, BuildError> {
    let find = |name: &PolicyName| {
        let link = links.iter().find(|link| link.name == *name);
        link.cloned()
            .ok_or_else(|| BuildError::Policy(name.clone()))
    };
    let mut chain: Vec<Link> = route.policies.iter().map(find).collect::<Result<_, _>>()?;
    let purpose = route.purpose.clone().map(FixedPurpose::link);
    let limits = (route.action == RouteAction::Upload).then(ImgwireLimits::link);
    let signed_in = chain
        .iter()
        .rposition(|link| link.provides == Some(Fact::Subject));
    let place = signed_in.map_or(0, |index| index + 1);
    chain.splice(place..place, purpose.into_iter().chain(limits));
    Ok(Chain::new(chain))
}

/// The settings rule it out.
const NO_STORE: &str = "an upload route needs a store";

fn upload_route(
    route: &RouteSettings,
    chain: &Chain,
    records: Arc<dyn RecordStore>,
    clock: &Arc<dyn Clock>,
) -> UploadRoute {
    let access = chain.links().iter().filter(|link| link.provides.is_some());
    let metadata = route.metadata.iter().flatten();
    UploadRoute {
        records,
        secret: StoreSecret::default(),
        has_workspaces: access
            .clone()
            .any(|link| link.provides == Some(Fact::Membership)),
        access: Chain::new(access.cloned().collect()),
        metadata: metadata
            .map(|(key, MetadataExpression(expression))| {
                let expression = FactExpression::new(expression.clone(), clock.clone());
                (key.clone(), expression)
            })
            .collect(),
        client_metadata: route.client_metadata.clone().unwrap_or_default(),
        delete_roles: route.delete_roles.clone().unwrap_or_default(),
        abandon_after: route.abandon_after.unwrap_or(ABANDON_AFTER),
        on_mismatch: route.on_mismatch.unwrap_or_default(),
    }
}
