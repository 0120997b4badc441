//! Counters of past windows: kept as long as a clock may be set back, and then deleted.

use std::{path::Path, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use policies::{
    Clock, Counter, PolicyName, QuotaStore, Reservation, StoreUse, SystemClock, Window,
};

use crate::{
    backends::{Backend as _, Database, Sqlite, main_store, open, suite},
    helpers::{TestClock, eventually},
    postgres::Postgres,
    redis_server::Redis,
};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: SignedDuration = SignedDuration::from_hours(24);

fn counter(key: &str) -> Counter {
    Counter {
        policy: PolicyName::parse("daily").unwrap(),
        key: key.to_owned(),
    }
}

/// A window of one day that ended `ago`.
fn ended(ago: SignedDuration) -> Window {
    let end = SystemClock::new().now() - ago;
    // Stores keep whole seconds.
    let end = Timestamp::from_second(end.as_second()).unwrap();
    Window {
        start: end - DAY,
        end,
    }
}

async fn count(store: &dyn QuotaStore, key: &str, window: Window) {
    let reserved = store.reserve(counter(key), window, u64::MAX).await.unwrap();
    let Reservation::Granted { mut hold, .. } = reserved else {
        unreachable!("there is room")
    };
    hold.commit().await.unwrap();
}

fn open_quotas(url: &str, clock: Arc<dyn Clock>) -> Arc<dyn QuotaStore> {
    let stores = open(url, &[StoreUse::Quotas], clock);
    stores.quotas(&main_store()).unwrap()
}

/// Counters of windows that ended recently, almost long enough ago to be deleted, and long ago.
async fn fill(store: &dyn QuotaStore, current: Window) {
    count(store, "current", current).await;
    count(store, "yesterdays", ended(DAY / 2)).await;
    count(
        store,
        "nearly old",
        ended(DAY * 2 - SignedDuration::from_mins(90)),
    )
    .await;
    for number in 0..OLD {
        count(store, &format!("old {number}"), ended(DAY * 3)).await;
    }
}

fn rows_of(path: &Path) -> Vec<String> {
    let database = rusqlite::Connection::open(path).unwrap();
    let mut statement = database
        .prepare("SELECT key FROM quota_counters ORDER BY key")
        .unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// The counters that the store keeps, and how many it deletes.
const KEPT: [&str; 3] = ["current", "nearly old", "yesterdays"];
const OLD: usize = 2500;

suite! {
    [counters_of_windows_that_ended_long_ago_are_deleted,]:
    in_sqlite: Sqlite,
    in_postgresql: Postgres,
}

async fn counters_of_windows_that_ended_long_ago_are_deleted(database: impl Database) {
    let clock = Arc::<TestClock>::default();
    let store = open_quotas(&database.url(), clock.clone());
    let rows = async || usize::try_from(rows(&database).await).unwrap();
    let current = ended(-DAY / 2);
    fill(&*store, current).await;
    assert_eq!(rows().await, OLD + KEPT.len());

    clock.advance(HOUR);
    // Requests continue meanwhile, and none of their counts is lost.
    let mut counted = 1;
    eventually("the deletion", async || {
        count(&*store, "current", current).await;
        counted += 1;
        rows().await == KEPT.len()
    })
    .await;
    drop(store);
    let store = open_quotas(&database.url(), clock.clone());
    let (used, _) = store.used(counter("current"), current).await.unwrap();
    assert_eq!(used, counted);
    for key in KEPT {
        let (used, _) = store.used(counter(key), ended(DAY * 30)).await.unwrap();
        assert!(used > 0, "{key}");
    }
}

/// The counters of the tests' policy.
async fn rows(database: &impl Database) -> i64 {
    let of_policy = format!("{} where policy = 'daily'", counters_of(database));
    database.count(&of_policy).await
}

fn counters_of<D: Database>(_: &D) -> &'static str {
    D::COUNTERS
}

#[actix_web::test]
async fn a_clock_that_was_a_year_ahead_deletes_no_current_counter() {
    let file = Sqlite::new();
    let path = file.path();
    let clock = Arc::<TestClock>::default();
    let store = open_quotas(&file.url(), clock.clone());
    count(&*store, "current", ended(-DAY / 2)).await;
    count(&*store, "old", ended(DAY * 3)).await;
    // The time of day jumps by a year; the elapsed time does not.
    let now = clock.now();
    clock.set(now + DAY * 365);
    clock.advance(HOUR);
    eventually("the cleaning", async || {
        count(&*store, "another", ended(-DAY / 2 - DAY * 365)).await;
        !rows_of(&path).contains(&"old".to_owned())
    })
    .await;
    assert!(rows_of(&path).contains(&"current".to_owned()));
}

#[actix_web::test]
async fn postgresql_deletes_nothing_early_for_a_gate_whose_clock_is_far_ahead() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    let clock = Arc::<TestClock>::default();
    let store = open_quotas(&server.url(), clock.clone());
    count(&*store, "current", ended(-DAY / 2)).await;
    count(&*store, "yesterdays", ended(DAY / 2)).await;
    count(&*store, "old", ended(DAY * 3)).await;
    let used = async |key: &str| {
        let window = ended(DAY * 30);
        store.used(counter(key), window).await.unwrap().0
    };
    clock.advance(HOUR * 24 * 30);
    eventually("the deletion", async || used("old").await == 0).await;
    for key in ["current", "yesterdays"] {
        assert!(used(key).await > 0, "{key}");
    }
}

#[actix_web::test]
async fn redis_keeps_a_counter_of_a_later_window_as_long_as_any_other() {
    let Some(server) = Redis::here() else { return };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let store = open_quotas(&server.url(), clock.clone());
    let left = || -> i64 {
        let keys = server.keys();
        let mut counters = keys.iter().filter(|key| key.contains(":quota:"));
        let (Some(key), None) = (counters.next(), counters.next()) else {
            unreachable!("there is one counter")
        };
        server.run(&["PTTL", key]).parse().unwrap()
    };
    // The clock was ten days ahead when the counter was created, and is correct again.
    store.now(&*clock).await.unwrap();
    count(&*store, "ws_1", ended(-DAY * 10)).await;
    let day = 24 * 60 * 60 * 1000;
    assert!((11 * day..=12 * day).contains(&left()), "{}", left());
    count(&*store, "ws_1", ended(-DAY / 2)).await;
    assert!((11 * day..=12 * day).contains(&left()), "{}", left());
}
