//! What the policies of the routes depend on, as their kinds and those of the identities say.

use policies::{IdentityName, Mode, OnFailure, StoreName, StoreUse};

use super::settings::{PolicySettings, Settings};
use crate::{
    gate::needs::{AcceptedIdentity, Dependency, Need},
    identities::ResolvedIdentity,
};

/// `sessions` is the store of the running gate's sessions.
pub(super) fn needs(settings: &Settings, sessions: Option<&StoreName>) -> Vec<Need> {
    let names = settings.routes.iter().flat_map(|route| &route.policies);
    let policies = names.filter_map(|name| settings.policy(name));
    // No answer leaves before its record is written.
    let records = settings.record_store().map(|store| Need {
        of: Dependency::Store(store.clone(), StoreUse::Uploads),
        is_required: true,
    });
    policies
        .flat_map(|policy| policy_needs(settings, policy, sessions))
        .chain(records)
        .collect()
}

fn policy_needs(
    settings: &Settings,
    policy: &PolicySettings,
    sessions: Option<&StoreName>,
) -> Vec<Need> {
    // A policy with `when` counts like one without, because it is unknown which requests will come.
    let is_required = policy.on_failure() == OnFailure::Deny && policy.common.mode == Mode::Enforce;
    let requirements = &policy.requirements;
    let mut needs = Vec::new();
    if let Some((store, used)) = requirements.store.clone() {
        needs.push(Need {
            of: Dependency::Store(store, used),
            is_required: is_required && !requirements.decides_without_store,
        });
    }
    if requirements.accept.is_empty() {
        return needs;
    }
    let mut accepted = Vec::new();
    for name in &requirements.accept {
        let exchange = find(settings, name).and_then(|identity| identity.profile().exchange);
        let sessions = sessions.filter(|_| exchange.is_some()).cloned();
        needs.extend(sessions.clone().map(|store| Need {
            of: Dependency::Store(store, StoreUse::Sessions),
            is_required,
        }));
        // Without them, no session starts, but those that have started are valid.
        needs.extend(exchange.into_iter().flatten().map(|name| Need {
            of: Dependency::Identities(vec![AcceptedIdentity {
                name: name.clone(),
                sessions: None,
            }]),
            is_required: false,
        }));
        accepted.push(AcceptedIdentity {
            name: name.clone(),
            sessions,
        });
    }
    needs.push(Need {
        of: Dependency::Identities(accepted),
        is_required,
    });
    needs
}

fn find<'a>(settings: &'a Settings, name: &IdentityName) -> Option<&'a ResolvedIdentity> {
    let mut identities = settings.identities.iter();
    identities.find_map(|(other, identity)| (other == name).then_some(identity))
}
