//! Implements the ports of the `policies` crate for one policy.

use std::sync::Arc;

use policies::{
    AcceptedIdentities, BuildError, CallSettings, Decider, Endpoint, IdentityName,
    MembershipSource, Memberships, PolicyName, Ports, Protocol, QuotaStore, RateLimitStore,
    StoreName,
};
use secrecy::SecretString;

use super::{
    LookupSlots, authorization,
    decider::HttpDecider,
    memberships::{Service, SourceMemberships, query_memberships},
};
use crate::{
    config::service_url::UrlTemplate, identities::Identities, outbound::Outbound, stores::Stores,
};

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
    fn accept(&self, names: &[IdentityName]) -> Result<AcceptedIdentities, BuildError> {
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
        source: MembershipSource<'_>,
        call: CallSettings,
    ) -> Result<Arc<dyn Memberships>, BuildError> {
        let name = self.name.clone();
        Ok(match source {
            MembershipSource::Url(url) => {
                let url = UrlTemplate::parse(url.as_str());
                let service = Service {
                    url: url.map_err(|error| BuildError::Other(error.into()))?,
                    headers: authorization(self.token),
                    timeout: call.timeout.get(),
                    http: self.outbound.http.clone(),
                };
                let part = format!("policies.{name}");
                SourceMemberships::new(service, name, part, call, self.lookup_slots, self.outbound)
            }
            MembershipSource::Query { store, query } => {
                let database = self.stores.memberships(store)?;
                let (store, slots) = (store.clone(), self.lookup_slots);
                query_memberships(name, store, database, query, call, slots, self.outbound)
            }
        })
    }

    fn decider(
        &self,
        endpoint: &Endpoint,
        protocol: Protocol,
        call: CallSettings,
    ) -> Result<Arc<dyn Decider>, BuildError> {
        let (name, token) = (self.name.clone(), self.token);
        let decider = HttpDecider::new(name, endpoint, protocol, call, token, self.outbound)?;
        Ok(Arc::new(decider))
    }
}
