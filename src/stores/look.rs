//! A read-only store: it shows counters and counts nothing.

use std::sync::Arc;

use futures_util::future::{LocalBoxFuture, ready};
use policies::{
    AttemptResult, BoxFuture, Counter, Fault, Pass, QuotaStore, Rate, RateLimitStore, Reservation,
    StoreName, Window,
};

use super::{
    backend::Probe,
    open::{Part, Port},
    shared_quotas::used_in,
};

type Counted = Result<Option<(u64, Window)>, String>;

pub(super) struct Look {
    pub(super) store: StoreName,
    pub(super) read: Box<dyn Fn(&Counter) -> Counted + Send + Sync>,
    pub(super) try_it: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl Look {
    /// A store without any counters.
    pub(super) fn at_nothing(store: &StoreName) -> Part {
        let look = Arc::new(Self {
            store: store.clone(),
            read: Box::new(|_| Ok(None)),
            try_it: Box::new(|| Ok(())),
        });
        Part {
            ports: vec![Port::Quotas(look.clone()), Port::RateLimits(look.clone())],
            probe: look,
        }
    }

    fn fault(&self, source: String) -> Fault {
        Fault::Store {
            store: self.store.clone(),
            source: source.into(),
        }
    }

    fn refuse<'a, T: 'a>(&self) -> BoxFuture<'a, T> {
        Box::pin(ready(Err(self.fault("it is only looked at".to_owned()))))
    }
}

impl Probe for Look {
    fn is_healthy(&self) -> bool {
        true
    }

    fn try_it(&self) -> LocalBoxFuture<'_, Result<(), String>> {
        Box::pin(ready((self.try_it)()))
    }
}

impl QuotaStore for Look {
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

impl RateLimitStore for Look {
    fn take(&self, _: Counter, rate: Rate, pass: Pass) -> BoxFuture<'_, AttemptResult> {
        match pass {
            Pass::Preview => Box::pin(ready(Ok(rate.allowed(rate.interval())))),
            Pass::Issue => self.refuse(),
        }
    }
}
