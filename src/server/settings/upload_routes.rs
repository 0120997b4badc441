//! Checks the routes by their `action`: which keys they need, and what an upload needs of its policies.

use std::collections::HashSet;

use policies::{Fact, Mode, OnFailure, PolicyName, Roles, StoreName, StoreUse, excerpt, similar};

use super::{
    policy::{Policies, PolicySettings, find},
    routes::RouteSettings,
    stores::Stores,
};
use crate::{
    config::document::{Reader, join},
    gate::route_paths::{RouteAction, WORKSPACE},
};

pub(super) fn check(
    reader: &mut Reader,
    routes: &[RouteSettings],
    policies: &Policies,
    stores: &Stores,
) {
    // The names of keys of policies that already have a fault.
    let mut reported = HashSet::new();
    for route in routes {
        let path = route.place();
        // It is unknown which keys it needs.
        if reader.has_fault(&join(&path, "action")) {
            continue;
        }
        if let Some(store) = &route.store {
            stores.check(reader, &join(&path, "store"), store, StoreUse::Uploads);
        }
        match route.action {
            RouteAction::Token => {
                check_token_route(reader, &path, route);
                check_no_storage(reader, &path, route, policies);
            }
            RouteAction::Upload => {
                check_keys(reader, &path, route, stores);
                check_metadata_keys(reader, &path, route);
                // A policy that could not be read may provide any fact.
                let chain = route.policies.iter();
                let chain = chain.map(|name| Some((name, find(policies, name)?)));
                if let Some(chain) = chain.collect::<Option<Vec<_>>>() {
                    check_access(reader, &path, route, &chain);
                    check_facts(reader, &path, route, &chain);
                    check_delete_roles(reader, &path, route, &chain);
                    check_enforced(reader, route, &chain, &mut reported);
                    check_storage(reader, route, &chain, &mut reported);
                }
            }
        }
    }
    check_one_store(reader, routes);
}

fn check_token_route(reader: &mut Reader, path: &str, route: &RouteSettings) {
    for (key, is_set) in [
        ("metadata", route.metadata.is_some()),
        ("client_metadata", route.client_metadata.is_some()),
        ("delete_roles", route.delete_roles.is_some()),
        ("abandon_after", route.abandon_after.is_some()),
        ("on_mismatch", route.on_mismatch.is_some()),
    ] {
        if is_set {
            let message =
                "requires `action = \"upload\"`; write that on the route, or remove the key";
            reader.fault(join(path, key), message);
        }
    }
    if route.path.as_str().contains(WORKSPACE) {
        let message = "`{workspace}` requires `action = \"upload\"`; write that on the route, or remove the segment, \
                       because clients name the workspace of a token in the body or in `X-Workspace-Id`";
        reader.fault(join(path, "path"), message);
    }
}

/// The gate does not see the files of a token.
fn check_no_storage(reader: &mut Reader, path: &str, route: &RouteSettings, policies: &Policies) {
    for (index, name) in route.policies.iter().enumerate() {
        if find(policies, name).is_some_and(PolicySettings::counts_uploads) {
            let message = format!(
                "`{name}` counts the images of uploads, and requires `action = \"upload\"`; write that on the route, or \
                 remove the policy"
            );
            reader.fault(format!("{path}.policies[{index}]"), message);
        }
    }
}

/// The keys that every upload route has.
fn check_keys(reader: &mut Reader, path: &str, route: &RouteSettings, stores: &Stores) {
    let key = join(path, "path");
    if !reader.has(&key) {
        let message = "is required with `action = \"upload\"`; write for example path = \"/imgwire/{workspace}\"";
        reader.fault(key, message);
    }
    let key = join(path, "store");
    if route.store.is_none() && !reader.has_fault(&key) {
        let able = stores.first_for(StoreUse::Uploads);
        let message = format!(
            "is required with `action = \"upload\"`, because the gate records whose image each one is; write for \
             example store = \"{}\"",
            able.map_or("main", StoreName::as_str)
        );
        reader.fault(key, message);
    }
}

/// The longest key of metadata, in bytes.
const MAX_KEY_BYTES: usize = 255;

fn check_metadata_keys(reader: &mut Reader, path: &str, route: &RouteSettings) {
    let fault = |key: &str| {
        if key.is_empty() {
            Some("a key must not be empty".to_owned())
        } else if key.len() > MAX_KEY_BYTES {
            Some(format!("a key must have at most {MAX_KEY_BYTES} bytes"))
        } else if key.chars().any(char::is_control) {
            Some("a key must not contain control characters".to_owned())
        } else {
            None
        }
    };
    let metadata = join(path, "metadata");
    let own = route.metadata.iter().flatten();
    for (key, _) in own {
        if let Some(message) = fault(key) {
            reader.fault(join(&metadata, key), message);
        }
    }
    let of_clients = route.client_metadata.as_deref().unwrap_or_default();
    reader.names(&join(path, "client_metadata"), of_clients, |key| {
        let is_own = route.metadata.as_ref().is_some_and(|own| own.contains_key(key));
        let both = || {
            let key = excerpt(key);
            format!("`{key}` is also a key of `metadata`, which clients cannot set; remove one of the two")
        };
        fault(key).or_else(|| is_own.then(both))
    });
}

type Chain<'a> = [(&'a PolicyName, &'a PolicySettings)];

fn provides(chain: &Chain<'_>, fact: Fact) -> bool {
    let mut chain = chain.iter();
    chain.any(|(_, policy)| policy.requirements.provides == Some(fact))
}

/// Every image has an owner, and an image in a workspace is for its members.
fn check_access(reader: &mut Reader, path: &str, route: &RouteSettings, chain: &Chain<'_>) {
    let key = join(path, "policies");
    // A route without policies has a fault already.
    if !chain.is_empty() && !provides(chain, Fact::Subject) {
        let message = "must name a policy of kind `signed_in`, because every image has an owner";
        reader.fault(&key, message);
    }
    if route.path.as_str().contains(WORKSPACE) && !provides(chain, Fact::Membership) {
        let message = "must name a policy of kind `workspace_member`, because `path` names the workspace; add one, or \
                       remove `{workspace}` from `path`";
        reader.fault(&key, message);
    }
}

/// An expression that reads a fact that no policy establishes has no value.
fn check_facts(reader: &mut Reader, path: &str, route: &RouteSettings, chain: &Chain<'_>) {
    for (key, expression) in route.metadata.iter().flatten() {
        let missing = expression.0.facts().find(|fact| !provides(chain, *fact));
        if let Some(fact) = missing {
            let message = format!(
                "reads `{}`, which no policy of the route establishes; add a policy of kind `{}`, or remove the key",
                fact.name(),
                fact.provided_by()
            );
            reader.fault(join(&join(path, "metadata"), key), message);
        }
    }
}

/// A role that may delete must be one that a member can have.
fn check_delete_roles(reader: &mut Reader, path: &str, route: &RouteSettings, chain: &Chain<'_>) {
    let Some(roles) = &route.delete_roles else {
        return;
    };
    let key = join(path, "delete_roles");
    // The last membership is the one that counts.
    let mut memberships = chain.iter().rev();
    let membership =
        memberships.find(|(_, policy)| policy.requirements.provides == Some(Fact::Membership));
    let Some((name, policy)) = membership else {
        let message = "requires a policy of kind `workspace_member`, which says what roles a user has; add one to \
                       `policies`, or remove the key";
        return reader.fault(key, message);
    };
    if roles.is_empty() {
        let message =
            "must name at least one role; leave it out if users may delete only their own images";
        reader.fault(&key, message);
    }
    let (known, may_have_others) = match &policy.requirements.roles {
        Roles::Any => (None, true),
        Roles::OneOf(roles) => (Some(roles), false),
        Roles::AtLeastOneOf(roles) => (Some(roles), true),
    };
    let unknown = |role: &String| {
        let known = known.filter(|known| !known.is_empty() && !known.contains(role))?;
        let names: Vec<_> = known.iter().map(String::as_str).collect();
        Some((similar(role, &names), names))
    };
    reader.names(&key, roles, |role| {
        let (meant, names) = unknown(role)?;
        let shown = excerpt(role);
        match meant {
            Some(meant) => Some(format!(
                "unknown role `{shown}`, which `{name}` does not allow; did you mean `{meant}`?"
            )),
            None if may_have_others => None,
            None => Some(format!(
                "no member that `{name}` allows has the role `{shown}`; write one of `{}`",
                names.join("`, `")
            )),
        }
    });
    for (index, role) in roles.iter().enumerate() {
        if may_have_others && let Some((None, _)) = unknown(role) {
            let message = format!(
                "`{}` is not in `roles` of `{name}`, so only members that also have one of those roles can use it",
                excerpt(role)
            );
            reader.warning(format!("{key}[{index}]"), message);
        }
    }
}

/// Who uploads, and in which workspace, must be known of every request.
fn check_enforced(
    reader: &mut Reader,
    route: &RouteSettings,
    chain: &Chain<'_>,
    reported: &mut HashSet<String>,
) {
    let of_users = chain
        .iter()
        .filter(|(_, policy)| policy.requirements.provides.is_some());
    for (name, policy) in of_users {
        let optional = [
            ("when", policy.common.when.is_some()),
            ("mode", policy.common.mode == Mode::Observe),
            ("on_failure", policy.on_failure() == OnFailure::Allow),
        ];
        for (key, _) in optional.into_iter().filter(|(_, is_set)| *is_set) {
            let key = format!("policies.{name}.{key}");
            if reported.insert(key.clone()) {
                let message = format!(
                    "the upload route `{}` needs the decision of `{name}` about every request; remove the key, or list \
                     another policy on the route",
                    route.path
                );
                reader.fault(key, message);
            }
        }
    }
}

/// A policy that counts uploads does so in the transactions that record them.
fn check_storage(
    reader: &mut Reader,
    route: &RouteSettings,
    chain: &Chain<'_>,
    reported: &mut HashSet<String>,
) {
    let Some(records) = &route.store else {
        return;
    };
    for (name, policy) in chain.iter().filter(|(_, policy)| policy.counts_uploads()) {
        let store = policy.requirements.store.as_ref();
        let Some((store, _)) = store.filter(|(store, _)| store != records) else {
            continue;
        };
        let key = format!("policies.{name}.store");
        // Its own fault is enough.
        if !reader.has_fault(&key) && reported.insert(key.clone()) {
            let message = format!(
                "`{store}` is not the store of the upload route `{}`, and the policy counts when the route records an \
                 upload; write store = \"{records}\"",
                route.path
            );
            reader.fault(key, message);
        }
    }
}

/// An image is found by its record, wherever it was uploaded.
fn check_one_store(reader: &mut Reader, routes: &[RouteSettings]) {
    let routes = routes.iter();
    let mut stores = routes.filter_map(|route| Some((route, route.store.as_ref()?)));
    let Some((RouteSettings { path, .. }, first)) = stores.next() else {
        return;
    };
    for (route, other) in stores.filter(|(_, other)| *other != first) {
        let key = join(&route.place(), "store");
        // Its own fault is enough.
        if reader.has_fault(&key) {
            continue;
        }
        let message = format!(
            "`{other}` is not the store of the route `{path}`, and all routes must record in the same one; write \
             store = \"{first}\""
        );
        reader.fault(key, message);
    }
}
