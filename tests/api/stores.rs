//! What every store promises: one suite, run on each backend. Quotas are counted in SQLite, PostgreSQL and Redis,
//! rate limits in memory and Redis.

use std::{rc::Rc, sync::Arc, time::Duration};

use actix_web::rt::System;
use futures_util::future::{LocalBoxFuture, join_all};
use imgwire_gate::{
    settings::{StoreSettings, outbound::ExtraAuthorities, stores::StoreUrl},
    stores::{PostgresStore, RedisStore, RedisUses, SqliteStore},
    telemetry::Metrics,
};
use jiff::{SignedDuration, Timestamp};
use policies::{
    Accept, Clock, Counter, Credentials, Denial, Evaluating, Facts, Fault, Hold, Pass, Policy as _,
    PolicyName, Presented, QuotaStore, RateLimit, RateLimitSettings, RateLimitStore, Reservation,
    RoutePath, StoreName, SystemClock, UploadRequest, Verdict, Window,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::json;

use crate::{helpers::eventually, postgres::Postgres, redis_server::Redis};

/// Opens a store on what was counted before.
pub(crate) type Open = Rc<dyn Fn() -> Arc<dyn QuotaStore>>;

/// A promise, which is kept on any store.
type Promise = fn(Open) -> LocalBoxFuture<'static, ()>;

fn url(text: &str) -> StoreUrl {
    let settings: StoreSettings = serde_json::from_value(json!({ "url": text })).unwrap();
    settings.url
}

fn system_clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

fn main_store() -> StoreName {
    StoreName::parse("main").unwrap()
}

fn open_redis(text: &str) -> RedisStore {
    let StoreUrl::Redis(url) = url(text) else {
        unreachable!("it is one")
    };
    let metrics = Arc::<Metrics>::default().store(&main_store(), &system_clock());
    let tls = imgwire_gate::outbound::tls_config(&ExtraAuthorities::default());
    let timeout = Duration::from_secs(5);
    let uses = RedisUses {
        limits: true,
        quotas: true,
        sessions: false,
    };
    RedisStore::new(
        main_store(),
        &url,
        uses,
        &tls,
        timeout,
        system_clock(),
        metrics,
    )
}

fn open_postgres(text: &str) -> PostgresStore {
    let StoreUrl::Postgres(config) = url(text) else {
        unreachable!("it is one")
    };
    let metrics = Arc::<Metrics>::default().store(&main_store(), &system_clock());
    let tls = imgwire_gate::outbound::tls_config(&ExtraAuthorities::default());
    let timeout = Duration::from_secs(5);
    PostgresStore::new(
        main_store(),
        &config,
        &tls,
        timeout,
        system_clock(),
        metrics,
    )
}

/// A store in a file that is gone with the last who can open it.
fn sqlite() -> Open {
    let folder = tempfile::tempdir().unwrap();
    Rc::new(move || {
        let path = folder.path().join("gate.db");
        let timeout = Duration::from_secs(5);
        Arc::new(SqliteStore::open(main_store(), &path, timeout, system_clock()).unwrap())
    })
}

/// An empty database of a Redis.
fn redis(server: &Redis) -> Open {
    server.run(&["FLUSHALL"]);
    let url = server.url();
    Rc::new(move || Arc::new(open_redis(&url)))
}

/// An empty database of a PostgreSQL.
async fn postgres(server: &Postgres) -> Open {
    server
        .run("drop schema if exists imgwire_gate cascade")
        .await;
    let url = server.url();
    Rc::new(move || Arc::new(open_postgres(&url)))
}

fn counter(policy: &str, key: &str) -> Counter {
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

async fn used(store: &dyn QuotaStore, key: &str, window: Window) -> u64 {
    store.used(counter("daily", key), window).await.unwrap().0
}

async fn never_more_than_the_limit_however_many_ask_at_once(open: Open) {
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

async fn what_is_released_is_there_again(open: Open) {
    let store = open();
    let hold = reserve(&*store, "ws_1", day(0), 1).await.unwrap();
    assert!(reserve(&*store, "ws_1", day(0), 1).await.is_none());
    hold.release().await.unwrap();
    assert_eq!(used(&*store, "ws_1", day(0)).await, 0);
    assert!(reserve(&*store, "ws_1", day(0), 1).await.is_some());
}

async fn what_was_committed_is_counted_after_a_restart(open: Open) {
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

async fn a_unit_of_a_window_that_is_over_is_not_given_back_to_the_next(open: Open) {
    let store = open();
    let old = reserve(&*store, "ws_1", day(0), 5).await.unwrap();
    let _new = reserve(&*store, "ws_1", day(1), 5).await.unwrap();
    old.release().await.unwrap();
    assert_eq!(used(&*store, "ws_1", day(1)).await, 1);
}

async fn policies_count_apart(open: Open) {
    let store = open();
    let _hold = reserve(&*store, "ws_1", day(0), 1).await.unwrap();
    let other = store
        .reserve(counter("monthly", "ws_1"), day(0), 1)
        .await
        .unwrap();
    assert!(matches!(other, Reservation::Granted { used: 1, .. }));
}

async fn more_counters_than_fit_in_memory_are_all_remembered(open: Open) {
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

/// Every promise of a quota.
const QUOTA: [Promise; 6] = [
    |open| Box::pin(never_more_than_the_limit_however_many_ask_at_once(open)),
    |open| Box::pin(what_is_released_is_there_again(open)),
    |open| Box::pin(what_was_committed_is_counted_after_a_restart(open)),
    |open| Box::pin(a_unit_of_a_window_that_is_over_is_not_given_back_to_the_next(open)),
    |open| Box::pin(policies_count_apart(open)),
    |open| Box::pin(more_counters_than_fit_in_memory_are_all_remembered(open)),
];

#[actix_web::test]
async fn a_file_of_sqlites_keeps_every_promise_of_a_quota() {
    for keep in QUOTA {
        keep(sqlite()).await;
    }
}

#[actix_web::test]
async fn a_redis_keeps_every_promise_of_a_quota() {
    let Some(server) = Redis::here() else { return };
    for keep in QUOTA {
        keep(redis(&server)).await;
    }
}

#[actix_web::test]
async fn a_postgresql_keeps_every_promise_of_a_quota() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    for keep in QUOTA {
        keep(postgres(&server).await).await;
    }
}

/// Runs random steps on a store and on a plain table.
fn counts_as_a_plain_table_does(open: impl Fn() -> Open) {
    let step = (0..3_u8, 0..4_i64, any::<bool>());
    let steps = prop::collection::vec(step, 1..40);
    let mut runner = TestRunner::new(Config::with_cases(24));
    let run = |steps: Vec<Step>| {
        let open = open();
        System::new().block_on(async move { it_counts_as_a_plain_table_does(open, &steps).await })
    };
    runner.run(&steps, run).unwrap();
}

#[test]
fn a_file_of_sqlites_counts_as_a_plain_table_does() {
    counts_as_a_plain_table_does(sqlite);
}

#[test]
fn a_redis_counts_as_a_plain_table_does() {
    let Some(server) = Redis::here() else { return };
    counts_as_a_plain_table_does(|| redis(&server));
}

#[test]
fn a_postgresql_counts_as_a_plain_table_does() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = System::new().block_on(server);
    counts_as_a_plain_table_does(|| System::new().block_on(postgres(&server)));
}

/// Opens a rate limit of these settings on what was counted before.
type OpenLimit<'a> = Box<dyn Fn(&str) -> RateLimit + 'a>;

fn limit_settings(text: &str) -> RateLimitSettings {
    toml::from_str(text).unwrap()
}

struct Nobody;

impl Credentials for Nobody {
    fn judge<'a>(&'a self, _: &'a Accept) -> LocalBoxFuture<'a, Result<Presented, Fault>> {
        Box::pin(std::future::ready(Ok(Presented::Nothing)))
    }
}

/// How long to wait, if an attempt from this address is refused; and how many are left.
async fn attempt(limit: &RateLimit, from: u8, pass: Pass) -> (Option<Duration>, u64) {
    let request = UploadRequest {
        route: RoutePath::parse("/api/imgwire/upload-token").unwrap(),
        workspace: None,
        purpose: None,
        file: None,
        ip: [192, 0, 2, from].into(),
        credentials: Box::new(Nobody),
    };
    let evaluating = Evaluating {
        request: &request,
        facts: &Facts::default(),
        pass,
    };
    let decision = limit.decide(evaluating).await.unwrap();
    let left = decision.limit.unwrap().remaining;
    match decision.verdict {
        Verdict::Allow => (None, left),
        Verdict::Deny(Denial::RateLimited { retry_after }) => (Some(retry_after), left),
        _ => unreachable!("a rate limit allows or limits"),
    }
}

async fn passed(limit: &RateLimit, from: u8, attempts: usize) -> usize {
    let attempts = join_all((0..attempts).map(|_| attempt(limit, from, Pass::Issue))).await;
    attempts.iter().filter(|(wait, _)| wait.is_none()).count()
}

/// Every promise of a rate limit; each part asks from an address of its own.
async fn keeps_every_promise_of_a_rate_limit(open: OpenLimit<'_>) {
    // So many at once and no more, however many ask, and each key for itself.
    let limit = open("per = ['ip']\nlimit = 20\nperiod = '1h'");
    assert_eq!(passed(&limit, 1, 64).await, 20);
    assert_eq!(passed(&limit, 2, 5).await, 5);
    assert_eq!(passed(&limit, 2, 64).await, 15);
    let (wait, left) = attempt(&limit, 1, Pass::Issue).await;
    let wait = wait.unwrap();
    assert!(
        wait <= Duration::from_secs(180) && wait > Duration::from_secs(170),
        "{wait:?}"
    );
    assert_eq!(left, 0);

    // Looking consumes nothing.
    let limit = open("per = ['ip']\nlimit = 4\nperiod = '1h'");
    for _ in 0..9 {
        assert_eq!(attempt(&limit, 3, Pass::Preview).await, (None, 3));
    }
    assert_eq!(attempt(&limit, 3, Pass::Issue).await, (None, 3));
    assert_eq!(attempt(&limit, 3, Pass::Issue).await, (None, 2));
    assert_eq!(attempt(&limit, 3, Pass::Preview).await, (None, 1));

    // They come back one by one; at no boundary twice the limit passes.
    let limit = open("per = ['ip']\nlimit = 20\nperiod = '1s'\nburst = 5");
    let clock = SystemClock::new();
    let mut count = 0;
    eventually("two seconds", async || {
        count += passed(&limit, 4, 10).await;
        clock.elapsed() > Duration::from_secs(2)
    })
    .await;
    let most = 5.0 + clock.elapsed().as_secs_f64() * 20.0;
    assert!(count as f64 <= most + 1.0, "{count} of {most}");
    assert!(count as f64 > most * 0.8, "{count} of {most}");
}

#[actix_web::test]
async fn memory_keeps_every_promise_of_a_rate_limit() {
    let open = |settings: &str| {
        let settings = limit_settings(settings);
        let name = PolicyName::parse("burst").unwrap();
        RateLimit::new(name, &settings, None, system_clock())
    };
    keeps_every_promise_of_a_rate_limit(Box::new(open)).await;
}

#[actix_web::test]
async fn a_redis_keeps_every_promise_of_a_rate_limit() {
    let Some(server) = Redis::here() else { return };
    let url = server.url();
    let open = move |settings: &str| {
        let settings = limit_settings(&format!("{settings}\nstore = 'main'"));
        let name = PolicyName::parse("burst").unwrap();
        let store: Arc<dyn RateLimitStore> = Arc::new(open_redis(&url));
        RateLimit::new(name, &settings, Some(store), system_clock())
    };
    keeps_every_promise_of_a_rate_limit(Box::new(&open)).await;

    // A changed rate keeps what is used up: 15 of 20 used are 15 of 30.
    let limit = open("per = ['ip']\nlimit = 20\nperiod = '1h'");
    assert_eq!(passed(&limit, 5, 15).await, 15);
    let limit = open("per = ['ip']\nlimit = 30\nperiod = '1h'");
    assert_eq!(passed(&limit, 5, 64).await, 15);

    // Nobody's address is to be read in the keys, and all of them go by themselves.
    let keys = server.keys();
    assert!(!keys.is_empty());
    for key in keys {
        assert!(key.starts_with("imgwire-gate:limit:burst:"), "{key}");
        assert!(!key.contains("192.0.2"), "{key}");
        let left: i64 = server.run(&["PTTL", &key]).parse().unwrap();
        assert!((1..=3_600_000).contains(&left), "{left}");
    }
}
