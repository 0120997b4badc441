//! Implements the ports of the `policies` crate for one policy.

use std::sync::Arc;

use policies::{
    Accept, BuildError, Decider, IdentityName, Lookup, Memberships, PolicyName, Ports, QuotaStore,
    RateLimitStore, RemoteSettings, StoreName, WorkspaceMemberSettings,
};
use secrecy::SecretString;

use super::{
    LookupSlots, authorization,
    decider::HttpDecider,
    memberships::{Service, SourceMemberships, query_memberships},
};
use crate::{identities::Identities, outbound::Outbound, stores::Stores};

pub(crate) struct PolicyPorts<'a> {
    pub(crate) name: &'a PolicyName,
    /// The bearer token for calls to a service.
    pub(crate) token: Option<&'a SecretString>,
    pub(crate) identities: &'a Identities,
    pub(crate) stores: &'a Stores,
    pub(crate) outbound: &'a Outbound,
    pub(crate) lookup_slots: &'a Arc<LookupSlots>,
}

impl Ports for PolicyPorts<'_> {
    fn accept(&self, names: &[IdentityName]) -> Result<Accept, BuildError> {
        let accept = self.identities.accept(names);
        accept.map_err(|error| BuildError::Other(error.into()))
    }

    fn quotas(&self, store: &StoreName) -> Result<Arc<dyn QuotaStore>, BuildError> {
        Ok(self.stores.quotas(store)?)
    }

    fn rate_limits(&self, store: &StoreName) -> Result<Arc<dyn RateLimitStore>, BuildError> {
        Ok(self.stores.rate_limits(store)?)
    }

    fn memberships(
        &self,
        lookup: Lookup<'_>,
        settings: &WorkspaceMemberSettings,
    ) -> Result<Arc<dyn Memberships>, BuildError> {
        let name = self.name.clone();
        Ok(match lookup {
            Lookup::Url(url) => {
                let service = Service {
                    url: url.clone(),
                    headers: authorization(self.token),
                    timeout: settings.timeout.get(),
                    http: self.outbound.http.clone(),
                };
                let part = format!("policies.{name}");
                SourceMemberships::new(
                    service,
                    name,
                    part,
                    settings,
                    self.lookup_slots,
                    self.outbound,
                )
            }
            Lookup::Query { store, query } => {
                let database = self.stores.memberships(store)?;
                let (store, slots) = (store.clone(), self.lookup_slots);
                query_memberships(name, store, database, query, settings, slots, self.outbound)
            }
        })
    }

    fn decider(&self, settings: &RemoteSettings) -> Arc<dyn Decider> {
        let name = self.name.clone();
        Arc::new(HttpDecider::new(name, settings, self.token, self.outbound))
    }
}
