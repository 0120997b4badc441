//! What is wrong between sections: names that lead nowhere, orders that cannot work.

use std::collections::HashSet;

use policies::{IdentityName, StoreName, StoreUse};

use super::{
    IdentitySettings, ServerSettings, SessionSettings, StoreSettings, check_accept,
    check_identities,
    document::Reader,
    load::Named,
    policy::{self, Policies},
    routes::RouteSettings,
    session::SessionPlace,
};
use crate::routes::{ALLOWANCE, SESSION_PATH};

pub(super) type Stores = [Named<StoreName, StoreSettings>];
pub(super) type Identities = [Named<IdentityName, IdentitySettings>];

pub(super) fn references(
    reader: &mut Reader,
    has_session: bool,
    server: Option<&ServerSettings>,
    stores: &Stores,
    identities: &Identities,
    policies: &Policies,
    routes: &[RouteSettings],
) {
    if let Some(server) = server {
        proxies(reader, server);
    }
    for identity in identities {
        check_identities::check(reader, has_session, server, identities, identity);
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
    check_accept::equal_subjects(reader, routes, policies, identities);
    check_accept::ids_that_fill_no_path(reader, routes, policies, identities);
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
    identities: &Identities,
) {
    if let SessionPlace::Store(name) = &session.store {
        let key = "session.store".to_owned();
        store(reader, key, name, StoreUse::Sessions, stores);
    }
    let is_session = |identity: &Named<_, _>| match &identity.entry {
        Some(IdentitySettings::Session(_)) => true,
        Some(_) => false,
        // What could not be read may be one.
        None => true,
    };
    if !identities.iter().any(is_session) {
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
