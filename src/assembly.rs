//! Puts policies, chains and identities together, as the settings say.

use std::sync::Arc;

use policies::{
    Chain, Clock, Condition, Decider, FixedPurpose, Link, Memberships, PolicyName, QuotaStore,
    RemoteSettings, StoreName, UrlTemplate, WorkspaceMemberSettings,
    settings::{Mode, OnFailure, Ports},
};
use rustls::ClientConfig;
use secrecy::SecretString;

use crate::{
    http_client::{HttpClient, Outbound},
    identity::{ClientAddress, CrossSite, Identities},
    in_flight::InFlight,
    lookups::{HttpDecider, HttpMemberships},
    routes::{Gate, Route},
    settings::{self, Settings},
    stores::Store,
};

/// Builds the policies, the chains of the routes and the identities of `settings`, on stores that are open.
pub(crate) fn gate(
    settings: &Settings,
    stores: &[(StoreName, Arc<dyn Store>)],
    in_flight: &InFlight,
    tls: &Arc<ClientConfig>,
    clock: &Arc<dyn Clock>,
) -> Gate {
    let outbound = Outbound {
        http: HttpClient::new(tls.clone()),
        clock: clock.clone(),
        metrics: Arc::default(),
    };
    let surroundings = Surroundings {
        settings,
        stores,
        outbound: &outbound,
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
            policy: kind.build(name, clock, &surroundings),
        })
        .collect();
    let link = |name: &PolicyName| {
        let link = links.iter().find(|link| link.name == *name);
        link.expect("every policy that is named exists, as the settings check")
            .clone()
    };
    let routes = settings
        .routes
        .iter()
        .map(|route| {
            Arc::new(Route {
                path: route.path.clone(),
                purpose: route.purpose.clone(),
                chain: chain(route, route.policies.iter().map(link).collect()),
            })
        })
        .collect();
    let server = &settings.server;
    let session = settings.session.as_ref().map(|(session, _)| session);
    let client_address = ClientAddress::new(&server.trusted_proxies);
    Gate {
        routes,
        messages: settings
            .policies
            .iter()
            .filter_map(|(name, common, _)| Some((name.clone(), common.message.clone()?)))
            .collect(),
        policies: links
            .iter()
            .map(|link| (link.name.clone(), link.policy.clone()))
            .collect(),
        identities: Arc::new(Identities::new(
            &settings.identities,
            session,
            CrossSite::new(&server.allowed_origins),
            &client_address,
            &outbound,
        )),
        client_address,
        body_limit: server.body_limit.bytes(),
        session_ttl: session.map(|session| session.ttl.get()),
        in_flight: in_flight.clone(),
        metrics: outbound.metrics,
        clock: clock.clone(),
    }
}

/// What the policies get from outside.
struct Surroundings<'a> {
    settings: &'a Settings,
    stores: &'a [(StoreName, Arc<dyn Store>)],
    outbound: &'a Outbound,
}

impl Surroundings<'_> {
    fn token(&self, policy: &PolicyName) -> Option<&SecretString> {
        let tokens = &self.settings.policy_tokens;
        let token = tokens.iter().find(|(name, _)| name == policy);
        token.map(|(_, token)| token)
    }
}

impl Ports for Surroundings<'_> {
    fn store(&self, wanted: &StoreName) -> Arc<dyn QuotaStore> {
        let store = self.stores.iter().find(|(name, _)| name == wanted);
        store
            .expect("every store that is named exists, as the settings check")
            .1
            .clone()
    }

    fn memberships(
        &self,
        name: &PolicyName,
        url: &UrlTemplate,
        settings: &WorkspaceMemberSettings,
    ) -> Arc<dyn Memberships> {
        let token = self.token(name);
        Arc::new(HttpMemberships::new(
            name.clone(),
            url,
            settings,
            token,
            self.outbound,
        ))
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
            policy: Arc::new(FixedPurpose(purpose.clone())),
        };
        links.insert(signed_in.map_or(0, |index| index + 1), link);
    }
    Chain::new(links)
}
