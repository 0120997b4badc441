//! Stores that are only looked at.

use std::sync::Arc;

use futures_util::future::{LocalBoxFuture, ready};
use policies::{
    Counter, Fault, Pass, QuotaStore, Rate, RateLimitStore, Reserving, StoreName, Taking, Window,
    settings::StoreUse,
};

use super::{
    backend::Probe,
    kind::Opening,
    open::{Part, Port},
};

/// A store in which nothing is counted yet, and nothing can be.
#[derive(Clone)]
pub(super) struct Uncounted(StoreName);

impl Uncounted {
    pub(super) fn part(opening: &Opening<'_>) -> Part {
        let store = || Arc::new(Self(opening.name.clone()));
        let ports: Vec<_> = opening
            .uses
            .iter()
            .filter_map(|wanted| match wanted {
                StoreUse::Quotas => Some(Port::Quotas(store())),
                StoreUse::RateLimits => Some(Port::RateLimits(store())),
                StoreUse::Sessions | StoreUse::Memberships => None,
            })
            .collect();
        Part::new(opening, Self(opening.name.clone()), ports)
    }
}

/// The fault of a store that is to count although it is only looked at.
pub(super) fn only_looked_at(store: &StoreName) -> Fault {
    Fault::Store {
        store: store.clone(),
        source: "it is only looked at".into(),
    }
}

impl Probe for Uncounted {
    fn is_healthy(&self) -> bool {
        true
    }

    fn try_it(&self) -> LocalBoxFuture<'_, Result<(), String>> {
        Box::pin(ready(Ok(())))
    }
}

impl QuotaStore for Uncounted {
    fn reserve(&self, _: Counter, _: Window, _: u64) -> Reserving<'_> {
        Box::pin(ready(Err(only_looked_at(&self.0))))
    }

    fn used(&self, _: Counter, window: Window) -> LocalBoxFuture<'_, Result<(u64, Window), Fault>> {
        Box::pin(ready(Ok((0, window))))
    }

    fn give_back(&self, _: Counter, _: Window) -> LocalBoxFuture<'_, Result<(), Fault>> {
        Box::pin(ready(Err(only_looked_at(&self.0))))
    }
}

impl RateLimitStore for Uncounted {
    fn take(&self, _: Counter, rate: Rate, pass: Pass) -> Taking<'_> {
        Box::pin(ready(match pass {
            Pass::Preview => Ok(rate.allowed(rate.interval())),
            Pass::Issue => Err(only_looked_at(&self.0)),
        }))
    }
}
