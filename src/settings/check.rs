//! What is wrong between sections: names that lead nowhere, orders that cannot work.

use std::collections::HashSet;

use policies::{StoreName, StoreUse};

use super::{
    ServerSettings, SessionSettings, StoreSettings,
    document::Reader,
    load::Named,
    policy::{self, Policies},
    routes::RouteSettings,
    session::SessionPlace,
};
use crate::{
    identities::{ChainIdentities, ConfiguredIdentities},
    routes::{ALLOWANCE, SESSION_PATH},
};

pub(super) type Stores = [Named<StoreName, StoreSettings>];

pub(super) fn references(
    reader: &mut Reader,
    server: Option<&ServerSettings>,
    stores: &Stores,
    identities: &ConfiguredIdentities,
    policies: &Policies,
    routes: &[RouteSettings],
) {
    if let Some(server) = server {
        proxies(reader, server);
    }
    policy::check(reader, policies, stores, identities);
    check_paths(reader, routes);
    for (index, route) in routes.iter().enumerate() {
        policy::check_chain(
            reader,
            &format!("routes[{index}].policies"),
            route,
            policies,
        );
    }
    policy::warn_if_counted(reader, routes, policies);
    let chains: Vec<_> = routes
        .iter()
        .map(|route| accepted_by(route, policies))
        .collect();
    identities.check_chains(reader, &chains);
}

/// The identities that the chain of a route accepts.
fn accepted_by<'a>(route: &RouteSettings, policies: &'a Policies) -> ChainIdentities<'a> {
    let mut chain = ChainIdentities::default();
    for name in &route.policies {
        let policy = policies.iter().find(|policy| policy.name == *name);
        let Some(policy) = policy.and_then(|policy| policy.entry.as_ref()) else {
            continue;
        };
        let requirements = &policy.requirements;
        let path = format!("policies.{name}.accept");
        chain.accepts.push((path, &requirements.accept));
        let service = requirements.service.as_ref();
        chain.asks_by_url |= service.is_some_and(|service| service.names_user_in_path);
    }
    chain
}

/// Warns of proxies that are everyone: then the clients themselves say which address they have.
fn proxies(reader: &mut Reader, server: &ServerSettings) {
    let proxies = &server.trusted_proxies;
    let everyone = proxies.iter().find(|proxy| proxy.is_everyone());
    if let Some(network) = everyone {
        let message = format!(
            "{} is not a list of proxies: any client can claim any address; name the addresses of your proxies only",
            network.0
        );
        reader.warning("server.trusted_proxies", message);
    }
}

/// Sessions have a place to be kept, and something accepts them.
pub(super) fn session(
    reader: &mut Reader,
    session: &SessionSettings,
    stores: &Stores,
    identities: &ConfiguredIdentities,
) {
    if let SessionPlace::Store(name) = &session.store {
        let key = "session.store".to_owned();
        store(reader, key, name, StoreUse::Sessions, stores);
    }
    if !identities.may_have_session() {
        let message = "no identity is of kind \"session\", so no session can begin; add one, or leave [session] out";
        reader.warning("session", message);
    }
}

/// A store that is named is there, and can do what it is named for.
pub(super) fn store(
    reader: &mut Reader,
    key: String,
    name: &StoreName,
    wanted: StoreUse,
    stores: &Stores,
) {
    let Some(store) = stores.iter().find(|store| store.name == *name) else {
        let message = format!("there is no [stores.{}]", name);
        reader.fault(key, message);
        return;
    };
    if let Some(store) = &store.entry
        && let Some(fault) = store.url.cannot(wanted)
    {
        reader.fault(key, fault);
    }
}

fn check_paths(reader: &mut Reader, routes: &[RouteSettings]) {
    let mut taken = HashSet::from([SESSION_PATH.to_owned()]);
    for (index, route) in routes.iter().enumerate() {
        let path = route.path.as_str();
        let allowance = format!("{path}{ALLOWANCE}");
        if reader.has_fault(&format!("routes[{index}].path")) {
            continue;
        }
        if taken.contains(path) || taken.contains(&allowance) {
            let key = format!("routes[{index}].path");
            reader.fault(key, format!("`{path}` is taken already"));
        }
        taken.insert(path.to_owned());
        taken.insert(allowance);
    }
}
