//! Quotas: one suite, with one line for each store.

use std::{rc::Rc, sync::Arc};

use actix_web::rt::System;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use policies::{Counter, Hold, PolicyName, QuotaStore, Reservation, StoreUse, Window};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    backends::{Backend, Sqlite, main_store, open, suite, system_clock},
    postgres::Postgres,
    redis_server::Redis,
};

suite! {
    [
        concurrent_reservations_never_exceed_the_limit,
        a_released_unit_can_be_reserved_again,
        committed_units_count_after_a_restart,
        a_unit_of_a_past_window_is_not_released_into_the_next,
        policies_have_separate_counters,
        more_counters_than_fit_in_memory_are_kept,
        quotas_count_like_a_plain_table,
    ]:
    in_sqlite: Sqlite,
    in_redis: Redis,
    in_postgresql: Postgres,
}

/// Opens the store again with its counters.
pub(crate) type Open = Rc<dyn Fn() -> Arc<dyn QuotaStore>>;

/// An empty store.
pub(crate) async fn empty(backend: &impl Backend) -> Open {
    backend.empty().await;
    let url = backend.url();
    Rc::new(move || {
        let stores = open(&url, &[StoreUse::Quotas], system_clock());
        stores.quotas(&main_store()).unwrap()
    })
}

pub(crate) fn counter(policy: &str, key: &str) -> Counter {
    Counter {
        policy: PolicyName::parse(policy).unwrap(),
        key: key.to_owned(),
    }
}

fn day(number: i64) -> Window {
    let start = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * number);
    Window {
        start,
        end: start + SignedDuration::from_hours(24),
    }
}

async fn reserve(
    store: &dyn QuotaStore,
    key: &str,
    window: Window,
    limit: u64,
) -> Option<Box<dyn Hold>> {
    match store
        .reserve(counter("daily", key), window, limit)
        .await
        .unwrap()
    {
        Reservation::Granted { hold, .. } => Some(hold),
        Reservation::Exhausted { .. } => None,
    }
}

pub(crate) async fn used(store: &dyn QuotaStore, key: &str, window: Window) -> u64 {
    store.used(counter("daily", key), window).await.unwrap().0
}

async fn concurrent_reservations_never_exceed_the_limit(backend: impl Backend) {
    let open = empty(&backend).await;
    let store = open();
    let holds = join_all((0..300).map(|_| reserve(&*store, "ws_1", day(0), 100))).await;
    assert_eq!(holds.iter().flatten().count(), 100);
    assert_eq!(used(&*store, "ws_1", day(0)).await, 100);
    let settled = join_all(holds.into_iter().flatten().map(|mut hold| async move {
        hold.commit().await.unwrap();
    }));
    settled.await;
    assert!(reserve(&*store, "ws_1", day(0), 100).await.is_none());
    assert!(reserve(&*store, "ws_2", day(0), 100).await.is_some());
}

async fn a_released_unit_can_be_reserved_again(backend: impl Backend) {
    let open = empty(&backend).await;
    let store = open();
    let hold = reserve(&*store, "ws_1", day(0), 1).await.unwrap();
    assert!(reserve(&*store, "ws_1", day(0), 1).await.is_none());
    hold.release().await.unwrap();
    assert_eq!(used(&*store, "ws_1", day(0)).await, 0);
    assert!(reserve(&*store, "ws_1", day(0), 1).await.is_some());
}

async fn committed_units_count_after_a_restart(backend: impl Backend) {
    let open = empty(&backend).await;
    {
        let store = open();
        let mut kept = reserve(&*store, "ws_1", day(3), 10).await.unwrap();
        kept.commit().await.unwrap();
        let mut given_back = reserve(&*store, "ws_1", day(3), 10).await.unwrap();
        given_back.commit().await.unwrap();
        given_back.release().await.unwrap();
    }
    let store = open();
    assert_eq!(used(&*store, "ws_1", day(3)).await, 1);
    assert_eq!(
        used(&*store, "ws_1", day(2)).await,
        1,
        "an earlier window is the later one"
    );
    assert_eq!(used(&*store, "ws_1", day(4)).await, 0);
}

async fn a_unit_of_a_past_window_is_not_released_into_the_next(backend: impl Backend) {
    let open = empty(&backend).await;
    let store = open();
    let old = reserve(&*store, "ws_1", day(0), 5).await.unwrap();
    let _new = reserve(&*store, "ws_1", day(1), 5).await.unwrap();
    old.release().await.unwrap();
    assert_eq!(used(&*store, "ws_1", day(1)).await, 1);
}

async fn policies_have_separate_counters(backend: impl Backend) {
    let open = empty(&backend).await;
    let store = open();
    let _hold = reserve(&*store, "ws_1", day(0), 1).await.unwrap();
    let other = store
        .reserve(counter("monthly", "ws_1"), day(0), 1)
        .await
        .unwrap();
    assert!(matches!(other, Reservation::Granted { used: 1, .. }));
}

async fn more_counters_than_fit_in_memory_are_kept(backend: impl Backend) {
    let open = empty(&backend).await;
    let store = open();
    for chunk in 0..14 {
        let keys = (0..5000).map(|key| format!("user_{}", chunk * 5000 + key));
        let commits = join_all(keys.map(|key| {
            let store = &store;
            async move {
                let mut hold = reserve(&**store, &key, day(0), 1).await.unwrap();
                hold.commit().await.unwrap();
            }
        }));
        commits.await;
    }
    for key in (0..70_000).step_by(1000) {
        assert!(
            reserve(&*store, &format!("user_{key}"), day(0), 1)
                .await
                .is_none(),
            "{key}"
        );
    }
}

/// A step of the model: which key, which day, and whether what is reserved is kept.
type Step = (u8, i64, bool);

async fn it_counts_as_a_plain_table_does(open: Open, steps: &[Step]) -> Result<(), TestCaseError> {
    const LIMIT: u64 = 3;
    let store = open();
    let mut model = std::collections::HashMap::<u8, (i64, u64)>::new();
    for (key, at, keep) in steps {
        let (latest, count) = model.entry(*key).or_insert((*at, 0));
        if at > latest {
            (*latest, *count) = (*at, 0);
        }
        let hold = reserve(&*store, &key.to_string(), day(*at), LIMIT).await;
        prop_assert_eq!(hold.is_some(), *count < LIMIT);
        match hold {
            Some(mut hold) if *keep => {
                hold.commit().await.unwrap();
                *count += 1;
            }
            Some(hold) => hold.release().await.unwrap(),
            None => {}
        }
        prop_assert_eq!(used(&*store, &key.to_string(), day(*at)).await, *count);
    }
    Ok(())
}

/// Runs random steps on a store and on a plain table.
async fn quotas_count_like_a_plain_table(backend: impl Backend + Send) {
    let run_all = move || {
        let step = (0..3_u8, 0..4_i64, any::<bool>());
        let steps = prop::collection::vec(step, 1..40);
        let run = |steps: Vec<Step>| {
            System::new().block_on(async {
                let open = empty(&backend).await;
                it_counts_as_a_plain_table_does(open, &steps).await
            })
        };
        TestRunner::new(Config::with_cases(24)).run(&steps, run)
    };
    // On a thread that has no runtime of its own.
    std::thread::scope(|scope| scope.spawn(run_all).join().unwrap()).unwrap();
}
