//! What is wrong between sections: names that lead nowhere, orders that cannot work.

use std::collections::HashSet;

use policies::{
    Dimension, PolicyName, StoreName, WorkspaceMemberSettings,
    settings::{Common, Kind, StoreUse},
};

use super::{
    ServerSettings, SessionSettings, StoreSettings, document::Reader, load::Named,
    routes::RouteSettings, session::SessionPlace,
};
use crate::{
    identities::{ChainIdentities, Profiles},
    routes::{ALLOWANCE, SESSION_PATH},
};

pub(super) type Stores = [Named<StoreName, StoreSettings>];
pub(super) type Policies = [Named<PolicyName, (Common, Kind)>];

pub(super) fn references(
    reader: &mut Reader,
    server: Option<&ServerSettings>,
    stores: &Stores,
    identities: &Profiles<'_>,
    policies: &Policies,
    routes: &[RouteSettings],
) {
    if let Some(server) = server {
        proxies(reader, server);
    }
    for policy in policies {
        let path = format!("policies.{}", policy.name);
        if let Some((_, kind)) = &policy.entry
            && kind.token().is_some()
            && kind.exposes_token()
        {
            let message = "would travel over plain http to another machine; write https in `url`, or allow it with `insecure_http = true`";
            reader.fault(format!("{path}.token"), message);
        }
        match &policy.entry {
            Some((_, Kind::SignedIn(settings))) => {
                identities.check_accept(reader, &format!("{path}.accept"), &settings.accept);
            }
            Some((_, kind @ (Kind::Quota(_) | Kind::RateLimit(_)))) => {
                policy_store(reader, &path, kind, stores);
            }
            // What could not be read is not missing.
            Some((_, Kind::UploadIntent(settings)))
                if settings.is_empty() && !reader.has_fault(&path) =>
            {
                let message = "checks nothing: name `purposes`, `mime_types` or `max_size`";
                reader.fault(path, message);
            }
            Some((_, kind @ Kind::WorkspaceMember(settings))) if !reader.has_fault(&path) => {
                member(reader, &path, settings);
                policy_store(reader, &path, kind, stores);
            }
            Some(_) | None => {}
        }
    }
    check_paths(reader, routes);
    for (index, route) in routes.iter().enumerate() {
        check_chain(
            reader,
            &format!("routes[{index}].policies"),
            route,
            policies,
        );
    }
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
        match policy.and_then(|policy| policy.entry.as_ref()) {
            Some((_, Kind::SignedIn(settings))) => {
                let path = format!("policies.{name}.accept");
                chain.accepts.push((path, &settings.accept));
            }
            Some((_, Kind::WorkspaceMember(member))) => chain.asks_by_url |= member.url.is_some(),
            _ => {}
        }
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
    identities: &Profiles<'_>,
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

fn policy_store(reader: &mut Reader, path: &str, kind: &Kind, stores: &Stores) {
    if let Some((name, wanted)) = kind.store() {
        store(reader, format!("{path}.store"), name, wanted, stores);
    }
}

/// A store that is named is there, and can do what it is named for.
fn store(reader: &mut Reader, key: String, name: &StoreName, wanted: StoreUse, stores: &Stores) {
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

/// A membership comes from one place, and only what is asked for takes long or wants a token.
fn member(reader: &mut Reader, path: &str, settings: &WorkspaceMemberSettings) {
    let found = [
        settings.claim.is_some(),
        settings.members.is_some(),
        settings.url.is_some(),
        settings.query.is_some(),
    ];
    if found.into_iter().filter(|found| *found).count() != 1 {
        reader.fault(path, "needs one of `claim`, `members`, `url` and `query`");
        return;
    }
    let is_asked_for = settings.url.is_some() || settings.query.is_some();
    if settings.cache.is_some() && !is_asked_for {
        reader.fault(path, "`cache` goes with `url` and `query` alone");
    }
    if settings.token.is_some() && settings.url.is_none() {
        reader.fault(path, "`token` goes with `url` alone");
    }
    if settings.store.is_some() != settings.query.is_some() {
        reader.fault(path, "`store` and `query` go together");
    }
    if settings.roles.as_ref().is_some_and(Vec::is_empty) {
        let message = "`roles` must name at least one role; leave it out to let in any member";
        reader.fault(path, message);
    }
    claimed(reader, path, settings);
    if let Some(query) = &settings.query {
        let missing = ["$1", "$2"].map(|parameter| !query.contains(parameter));
        if missing.contains(&true) {
            let message = "must use `$1`, the user's id, and `$2`, the workspace's";
            reader.fault(format!("{path}.query"), message);
        }
    }
}

/// How a claim is read: only with a claim, and each role from one place.
fn claimed(reader: &mut Reader, path: &str, settings: &WorkspaceMemberSettings) {
    let WorkspaceMemberSettings {
        claim,
        id_key,
        role_key,
        role_claim,
        ..
    } = settings;
    let mut fault = |message: &str| reader.fault(path, message);
    if claim.is_none() {
        let keys = [
            (id_key.is_some(), "`id_key` goes with `claim` only"),
            (role_key.is_some(), "`role_key` goes with `claim` only"),
            (role_claim.is_some(), "`role_claim` goes with `claim` only"),
        ];
        for (_, message) in keys.into_iter().filter(|(is_set, _)| *is_set) {
            fault(message);
        }
        return;
    }
    if settings.id_key().is_empty() || settings.role_key().is_empty() {
        fault("`id_key` and `role_key` must not be empty");
    } else if role_claim.is_none() && settings.id_key() == settings.role_key() {
        fault("`id_key` and `role_key` must differ: one member is not both the id and the role");
    }
    if role_key.is_some() && role_claim.is_some() {
        fault("`role_key` and `role_claim` exclude each other: a role comes from one place");
    }
    if role_claim.is_some() && role_claim == claim {
        fault("`role_claim` must be another claim than `claim`");
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

fn check_chain(reader: &mut Reader, key: &str, route: &RouteSettings, policies: &Policies) {
    let chain = &route.policies;
    if chain.is_empty() {
        let message = "must name at least one policy: without any, everyone gets tokens";
        reader.fault(key, message);
    }
    let find = |name: &PolicyName| policies.iter().find(|policy| policy.name == *name);
    reader.names(key, chain, |name| {
        find(name)
            .is_none()
            .then(|| format!("there is no [policies.{name}]"))
    });
    let mut found_out = Vec::new();
    let mut bounds_purposes = route.purpose.is_some();
    for (index, name) in chain.iter().enumerate() {
        let place = format!("{key}[{index}]");
        // One that could not be read might find out anything.
        let Some(policy) = find(name) else {
            return;
        };
        let Some((common, kind)) = &policy.entry else {
            return;
        };
        bounds_purposes |= kind.bounds_purposes() && common.always_enforces();
        let per_purpose = kind
            .per()
            .is_some_and(|per| per.contains(Dimension::Purpose));
        if per_purpose && !bounds_purposes {
            let message = format!(
                "`{name}` counts per purpose, which the client chooses: give the route a `purpose`, or put an \
                 `upload_intent` with `purposes` before it, without `mode` and `when`"
            );
            reader.fault(&place, message);
        }
        for fact in kind.needs() {
            if !found_out.contains(&fact) {
                let first = fact.found_out_by();
                reader.fault(
                    &place,
                    format!("`{name}` needs a policy of kind `{first}` before it"),
                );
            }
        }
        found_out.extend(kind.finds_out());
    }
}
