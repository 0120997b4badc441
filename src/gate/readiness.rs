//! Which parts are down, and whether requests can be served without them.

use policies::{IdentityName, StoreUse};

use super::{
    needs::{AcceptedIdentity, Dependency, Need},
    rules::Rules,
};
use crate::{identities::KeysState, stores::OpenStore};

/// The parts that are down, in the order of the config, for example `stores.main`. Parts that no route uses do not
/// count.
#[derive(Debug, Default)]
pub struct Readiness {
    /// Some requests cannot be served without them.
    pub failing: Vec<String>,
    /// Requests are served without them, or with what they have.
    pub degraded: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    Degraded,
    Failing,
}

impl Condition {
    fn without(need: &Need) -> Self {
        match need.is_required {
            true => Self::Failing,
            false => Self::Degraded,
        }
    }
}

impl Readiness {
    fn add(&mut self, part: String, condition: Option<Condition>) {
        match condition {
            None => {}
            Some(Condition::Degraded) => self.degraded.push(part),
            Some(Condition::Failing) => self.failing.push(part),
        }
    }
}

impl Rules {
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let mut readiness = Readiness::default();
        for store in self.stores.iter() {
            let part = format!("stores.{}", store.name);
            let condition = self.store_condition(store);
            // A store that is down loses nothing more.
            if let (None, Some(reason)) = (condition, self.loss(store)) {
                readiness.degraded.push(format!("{part}: {reason}"));
            }
            readiness.add(part, condition);
        }
        for (name, keys) in self.identities.keys() {
            let part = format!("identities.{name}");
            readiness.add(part, self.keys_condition(name, &keys));
        }
        readiness
    }

    fn store_condition(&self, store: &OpenStore) -> Option<Condition> {
        let lacking = self.needs.iter().filter(|need| match &need.of {
            Dependency::Store(name, used) => *name == store.name && !store.is_healthy_for(*used),
            Dependency::Identities(_) => false,
        });
        lacking.map(Condition::without).max()
    }

    /// Why what a route keeps in the store may be lost.
    fn loss(&self, store: &OpenStore) -> Option<String> {
        let is_needed = self.needs.iter().any(|need| match &need.of {
            Dependency::Store(name, _) => *name == store.name,
            Dependency::Identities(accepted) => accepted
                .iter()
                .any(|identity| identity.sessions.as_ref() == Some(&store.name)),
        });
        store.degraded().filter(|_| is_needed)
    }

    fn keys_condition(&self, identity: &IdentityName, keys: &KeysState) -> Option<Condition> {
        if keys.keys > 0 && keys.failure.is_none() {
            return None;
        }
        let conditions = self.needs.iter().filter_map(|need| match &need.of {
            Dependency::Identities(accepted)
                if accepted.iter().any(|one| one.name == *identity) =>
            {
                let is_served = accepted.iter().any(|one| self.is_usable(one));
                Some(if is_served {
                    Condition::Degraded
                } else {
                    Condition::without(need)
                })
            }
            Dependency::Identities(_) | Dependency::Store(..) => None,
        });
        conditions.max()
    }

    fn is_usable(&self, identity: &AcceptedIdentity) -> bool {
        let mut keys = self.identities.keys();
        let has_keys = keys
            .find(|(name, _)| **name == identity.name)
            .is_none_or(|(_, keys)| keys.keys > 0);
        let has_sessions = identity.sessions.as_ref().is_none_or(|name| {
            let mut stores = self.stores.iter();
            stores
                .find(|store| store.name == *name)
                .is_none_or(|store| store.is_healthy_for(StoreUse::Sessions))
        });
        has_keys && has_sessions
    }
}
