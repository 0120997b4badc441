//! Implements the ports of the `policies` crate, through which policies call other services and databases.

mod decider;
mod lookup_slots;
mod memberships;

use std::sync::Arc;

use actix_web::http::header::{self, HeaderName, HeaderValue};
use policies::{
    AcceptedIdentities, BuildError, CallSettings, Decider, Endpoint, IdentityName,
    MembershipSource, Memberships, PolicyName, Ports, Protocol, QuotaStore, RateLimitStore,
    StorageStore, StoreName,
};
use secrecy::{ExposeSecret as _, SecretString};

pub(crate) use self::lookup_slots::LookupSlots;
use self::memberships::{Service, SourceMemberships};
pub use self::{decider::HttpDecider, memberships::query_memberships};
use crate::{
    config::service_url::UrlTemplate, identities::Identities, outbound::Outbound, stores::Stores,
};

/// The ports of one policy.
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

    fn storage(&self, store: &StoreName) -> Result<Arc<dyn StorageStore>, BuildError> {
        Ok(self.stores.records(store)?)
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
        let (name, headers) = (self.name.clone(), authorization(self.token));
        let decider = HttpDecider::new(name, endpoint, protocol, call, headers, self.outbound)?;
        Ok(Arc::new(decider))
    }
}

fn authorization(token: Option<&SecretString>) -> Vec<(HeaderName, HeaderValue)> {
    let value = token.and_then(|token| {
        let bearer = format!("Bearer {}", token.expose_secret());
        let mut value = HeaderValue::from_str(&bearer).ok()?;
        value.set_sensitive(true);
        Some(value)
    });
    value
        .map(|value| (header::AUTHORIZATION, value))
        .into_iter()
        .collect()
}
