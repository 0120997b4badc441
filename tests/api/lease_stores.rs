//! Leases on a server: one suite, with one line for each store.

use std::{sync::Arc, time::Duration};

use policies::StoreUse;

use crate::{
    backends::{Backend, open, suite, system_clock},
    helpers::{LeaseStore, eventually},
    postgres::Postgres,
    redis_server::Redis,
};

suite! {
    [
        one_holder_has_a_lease_and_renews_it,
        a_lease_ends_by_itself_and_then_another_holder_takes_it,
        of_many_holders_at_once_one_has_the_lease,
    ]:
    in_redis: Redis,
    in_postgresql: Postgres,
}

const HOUR: Duration = Duration::from_secs(60 * 60);

fn open_leases(backend: &impl Backend) -> Arc<dyn LeaseStore> {
    let stores = open(&backend.url(), &[StoreUse::Quotas], system_clock());
    stores.leases().unwrap()
}

async fn acquire(store: &dyn LeaseStore, name: &str, holder: &str, ttl: Duration) -> bool {
    store.acquire(name, holder, ttl).await.unwrap()
}

async fn one_holder_has_a_lease_and_renews_it(backend: impl Backend) {
    let (one, other) = (open_leases(&backend), open_leases(&backend));
    assert!(acquire(&*one, "a", "gate-1", HOUR).await);
    assert!(!acquire(&*other, "a", "gate-2", HOUR).await);
    assert!(acquire(&*one, "a", "gate-1", HOUR).await);
    // Leases of other names are separate.
    assert!(acquire(&*other, "b", "gate-2", HOUR).await);
    assert!(!acquire(&*one, "b", "gate-1", HOUR).await);
}

async fn a_lease_ends_by_itself_and_then_another_holder_takes_it(backend: impl Backend) {
    let (one, other) = (open_leases(&backend), open_leases(&backend));
    assert!(acquire(&*one, "a", "gate-1", HOUR).await);
    // A renewal may also shorten it.
    assert!(acquire(&*one, "a", "gate-1", Duration::from_millis(300)).await);
    eventually("its end", async || {
        acquire(&*other, "a", "gate-2", HOUR).await
    })
    .await;
    assert!(!acquire(&*one, "a", "gate-1", HOUR).await);
}

async fn of_many_holders_at_once_one_has_the_lease(backend: impl Backend) {
    let stores: Vec<_> = (0..4).map(|_| open_leases(&backend)).collect();
    let holders = (0..20).map(|holder| {
        let store = &stores[holder % stores.len()];
        async move { acquire(&**store, "a", &holder.to_string(), HOUR).await }
    });
    let results = futures_util::future::join_all(holders).await;
    assert_eq!(results.into_iter().filter(|has_it| *has_it).count(), 1);
}
