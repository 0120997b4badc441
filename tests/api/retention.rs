//! Counters of past windows: kept as long as a clock may be set back, and deleted then.

use std::{path::Path, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use policies::{
    Clock, Counter, PolicyName, QuotaStore, Reservation, StoreUse, SystemClock, Window,
};

use crate::{
    backends::{Backend as _, Sqlite, main_store, open},
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

/// A window of a day that ended so long ago.
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

/// Counters of windows that are over for a while, a little short of the time that they are kept, and long.
async fn fill(store: &dyn QuotaStore, current: Window) {
    count(store, "current", current).await;
    count(store, "yesterdays", ended(DAY / 2)).await;
    count(
        store,
        "nearly old",
        ended(DAY * 2 - SignedDuration::from_mins(90)),
    )
    .await;
    for number in 0..2500 {
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

const KEPT: [&str; 3] = ["current", "nearly old", "yesterdays"];

#[actix_web::test]
async fn sqlite_forgets_counters_whose_windows_are_long_over() {
    let file = Sqlite::new();
    let path = file.path();
    let clock = Arc::<TestClock>::default();
    let store = open_quotas(&file.url(), clock.clone());
    let current = ended(-DAY / 2);
    fill(&*store, current).await;
    assert_eq!(rows_of(&path).len(), 2503);

    clock.advance(HOUR);
    // Requests go on meanwhile, and their counts are all there.
    let mut counted = 1;
    eventually("the cleaning", async || {
        count(&*store, "current", current).await;
        counted += 1;
        rows_of(&path) == KEPT
    })
    .await;
    drop(store);
    let store = open_quotas(&file.url(), clock.clone());
    let (used, _) = store.used(counter("current"), current).await.unwrap();
    assert_eq!(used, counted);
}

#[actix_web::test]
async fn a_clock_that_was_ahead_by_mistake_has_deleted_nothing() {
    let file = Sqlite::new();
    let path = file.path();
    let clock = Arc::<TestClock>::default();
    let store = open_quotas(&file.url(), clock.clone());
    count(&*store, "current", ended(-DAY / 2)).await;
    count(&*store, "old", ended(DAY * 3)).await;
    // The time of day jumps by a year, and what elapses does not.
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
async fn postgresql_forgets_counters_whose_windows_are_long_over() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    let clock = Arc::<TestClock>::default();
    let store = open_quotas(&server.url(), clock.clone());
    let used = async |key: &str| {
        let window = ended(DAY * 30);
        store.used(counter(key), window).await.unwrap().0
    };
    let current = ended(-DAY / 2);
    fill(&*store, current).await;
    assert_eq!(used("old 7").await, 1);

    clock.advance(HOUR);
    eventually("the cleaning", async || {
        count(&*store, "current", current).await;
        let mut is_clean = true;
        for number in [0, 1, 999, 1000, 1001, 2499] {
            is_clean &= used(&format!("old {number}")).await == 0;
        }
        is_clean
    })
    .await;
    for key in KEPT {
        assert!(used(key).await > 0, "{key}");
    }
    // The server's clock decides as well: a gate whose own is far ahead deletes nothing early.
    clock.advance(HOUR * 24 * 30);
    count(&*store, "old again", ended(DAY * 3)).await;
    eventually("the second cleaning", async || used("old again").await == 0).await;
    for key in KEPT {
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
    // The clock was ten days ahead when the counter was made, and is right again.
    store.now(&*clock).await.unwrap();
    count(&*store, "ws_1", ended(-DAY * 10)).await;
    let day = 24 * 60 * 60 * 1000;
    assert!((11 * day..=12 * day).contains(&left()), "{}", left());
    count(&*store, "ws_1", ended(-DAY / 2)).await;
    assert!((11 * day..=12 * day).contains(&left()), "{}", left());
}
