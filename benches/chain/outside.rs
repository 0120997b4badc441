//! What policies get from outside: a store that keeps nothing, and services that answered before.

use std::sync::Arc;

use futures_util::future::{LocalBoxFuture, ready};
use imgwire_gate::{
    gate::ports::{HttpDecider, query_memberships},
    identities::Identities,
    outbound::Outbound,
    stores::{MemberDatabase, MemberRow, StoreFault},
};
use policies::{
    AcceptedIdentities, BoxFuture, BuildError, CallSettings, Counter, Decider, Endpoint, Hold,
    IdentityName, MembershipSource, Memberships, PolicyName, Ports, Protocol, QuotaStore,
    RateLimitStore, Reservation, StorageStore, StoreName, Window, WorkspaceId,
};

/// A store without a store: everything is granted and nothing kept.
struct Nowhere;

struct Nothing;

impl QuotaStore for Nowhere {
    fn reserve(&self, _: Counter, window: Window, _: u64) -> BoxFuture<'_, Reservation> {
        let hold = Box::new(Nothing);
        Box::pin(ready(Ok(Reservation::Granted {
            hold,
            used: 1,
            window,
        })))
    }

    fn used(&self, _: Counter, window: Window) -> BoxFuture<'_, (u64, Window)> {
        Box::pin(ready(Ok((0, window))))
    }

    fn give_back(&self, _: Counter, _: Window) -> BoxFuture<'_, ()> {
        Box::pin(ready(Ok(())))
    }
}

/// What policies get from outside: a store that keeps nothing, and services that answered before.
pub(crate) struct Outside<'a>(pub(crate) &'a Outbound, pub(crate) &'a Identities);

impl Ports for Outside<'_> {
    fn accept(&self, names: &[IdentityName]) -> Result<AcceptedIdentities, BuildError> {
        Ok(self.1.accept(names).expect("the identities exist"))
    }

    fn quotas(&self, _: &StoreName) -> Result<Arc<dyn QuotaStore>, BuildError> {
        Ok(Arc::new(Nowhere))
    }

    fn rate_limits(&self, _: &StoreName) -> Result<Arc<dyn RateLimitStore>, BuildError> {
        unreachable!("the limits are in memory")
    }

    fn storage(&self, _: &StoreName) -> Result<Arc<dyn StorageStore>, BuildError> {
        unreachable!("no chain counts storage")
    }

    fn memberships(
        &self,
        _: MembershipSource<'_>,
        call: CallSettings,
    ) -> Result<Arc<dyn Memberships>, BuildError> {
        let name = PolicyName::parse("asked").expect("the name is valid");
        let store = StoreName::parse("app").expect("the name is valid");
        let (database, turns) = (Arc::new(Nowhere), Arc::default());
        let asked = query_memberships(name, store, database, "", call, &turns, self.0);
        Ok(asked)
    }

    fn decider(
        &self,
        endpoint: &Endpoint,
        protocol: Protocol,
        call: CallSettings,
    ) -> Result<Arc<dyn Decider>, BuildError> {
        let name = PolicyName::parse("asked").expect("the name is valid");
        let decider = HttpDecider::new(name, endpoint, protocol, call, Vec::new(), self.0)?;
        Ok(Arc::new(decider))
    }
}

impl MemberDatabase for Nowhere {
    fn columns<'a>(&'a self, _: &'a str) -> LocalBoxFuture<'a, Result<Vec<String>, StoreFault>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn members<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: &'a str,
        _: std::time::Duration,
    ) -> LocalBoxFuture<'a, Result<Vec<MemberRow>, StoreFault>> {
        Box::pin(ready(Ok(vec![MemberRow {
            role: Some("editor".to_owned()),
            workspace: WorkspaceId::parse("ws_1").ok(),
        }])))
    }
}

impl Hold for Nothing {
    fn commit(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(ready(Ok(())))
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(ready(Ok(())))
    }
}
