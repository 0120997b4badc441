//! Warns about policies, identities, stores and other settings that nothing uses.

use std::collections::HashSet;

use policies::IdentityName;

use super::Settings;
use crate::{config::document::Reader, gate::route_paths::RouteAction};

pub(super) fn warn(reader: &mut Reader, settings: &Settings) {
    let routes = settings.routes.iter();
    let used_policies: HashSet<_> = routes.flat_map(|route| &route.policies).collect();
    let policies = settings.policies.iter();
    let (used, unused): (Vec<_>, Vec<_>) =
        policies.partition(|(name, _)| used_policies.contains(name));
    for (name, _) in unused {
        let message = "nothing uses it; list it in `policies` of a route, or remove it";
        reader.warning(format!("policies.{name}"), message);
    }

    let accepted = used
        .iter()
        .flat_map(|(_, policy)| &policy.requirements.accept);
    let mut used_identities: HashSet<&IdentityName> = accepted.collect();
    for (name, identity) in &settings.identities {
        // The gate's own endpoint starts sessions, whether or not a route accepts them.
        if let Some(exchange) = identity.profile().exchange {
            used_identities.insert(name);
            used_identities.extend(exchange);
        }
    }
    for (name, _) in &settings.identities {
        if !used_identities.contains(name) {
            let message =
                "nothing uses it; list it in `accept` of a policy that a route uses, or remove it";
            reader.warning(format!("identities.{name}"), message);
        }
    }

    let stores = used
        .iter()
        .filter_map(|(_, policy)| policy.requirements.store.as_ref());
    let mut used_stores: HashSet<_> = stores.map(|(store, _)| store).collect();
    used_stores.extend(settings.session_store());
    used_stores.extend(settings.record_store());
    for (name, _) in &settings.stores {
        if !used_stores.contains(name) {
            let message = "nothing uses it; name it as `store` in a policy that a route uses, in a route or in [session], or remove it";
            reader.warning(format!("stores.{name}"), message);
        }
    }

    let issues_tokens = settings.routes_of(RouteAction::Token).next().is_some();
    if settings.imgwire.pool.is_some() && !issues_tokens {
        let message = "nothing uses its tokens, because no route issues any; remove it";
        reader.warning("imgwire.pool", message);
    }
    let uploads = settings.routes_of(RouteAction::Upload).next().is_some();
    if settings.events.is_some() && !uploads {
        let message = "there are no events, because no route has `action = \"upload\"`; write that on a route, or remove the section";
        reader.warning("events", message);
    }
    if settings.record_store().is_none() && reader.has("uploads") {
        let message = "nothing uses it, because no route has a `store`; write store = \"NAME\" on a route, or remove it";
        reader.warning("uploads", message);
    }
}
