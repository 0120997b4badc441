//! A read-only store: it shows counters and counts nothing.

use std::sync::Arc;

use futures_util::future::{LocalBoxFuture, ready};
use policies::{
    AttemptResult, BoxFuture, Counter, Fault, Pass, QuotaStore, Rate, RateLimitStore, Reservation,
    StoreName, Window,
};

use super::{
    fault::StoreFault,
    ports::{HealthCheck, OpenPorts, Port},
    shared_quotas::used_in,
};

pub(super) struct ReadOnly {
    pub(super) store: StoreName,
    pub(super) read: Box<ReadCounter>,
    pub(super) check: Box<dyn Fn() -> Result<(), StoreFault> + Send + Sync>,
}

type ReadCounter = dyn Fn(&Counter) -> Result<Option<(u64, Window)>, String> + Send + Sync;

impl ReadOnly {
    /// A store without any counters.
    pub(super) fn empty(store: &StoreName) -> OpenPorts {
        let empty = Arc::new(Self {
            store: store.clone(),
            read: Box::new(|_| Ok(None)),
            check: Box::new(|| Ok(())),
        });
        OpenPorts {
            ports: vec![Port::Quotas(empty.clone()), Port::RateLimits(empty.clone())],
            health: empty,
        }
    }

    fn fault(&self, source: String) -> Fault {
        Fault::Store {
            store: self.store.clone(),
            source: source.into(),
        }
    }

    fn refuse<'a, T: 'a>(&self) -> BoxFuture<'a, T> {
        Box::pin(ready(Err(self.fault("the store is read-only".to_owned()))))
    }
}

impl HealthCheck for ReadOnly {
    fn is_healthy(&self) -> bool {
        true
    }

    fn check(&self) -> LocalBoxFuture<'_, Result<(), StoreFault>> {
        Box::pin(ready((self.check)()))
    }
}

impl QuotaStore for ReadOnly {
    fn reserve(&self, _: Counter, _: Window, _: u64) -> BoxFuture<'_, Reservation> {
        self.refuse()
    }

    fn used(&self, counter: Counter, window: Window) -> BoxFuture<'_, (u64, Window)> {
        let counted = (self.read)(&counter).map_err(|error| self.fault(error));
        Box::pin(ready(counted.map(|counted| used_in(window, counted))))
    }

    fn give_back(&self, _: Counter, _: Window) -> BoxFuture<'_, ()> {
        self.refuse()
    }
}

impl RateLimitStore for ReadOnly {
    fn take(&self, _: Counter, rate: Rate, pass: Pass) -> BoxFuture<'_, AttemptResult> {
        match pass {
            Pass::Preview => Box::pin(ready(Ok(rate.allowed(rate.interval())))),
            Pass::Issue => self.refuse(),
        }
    }
}
