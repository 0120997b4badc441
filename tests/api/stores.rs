//! What every store promises: one suite for each port, and one line for each backend that has it.

use std::{rc::Rc, sync::Arc, time::Duration};

use actix_web::rt::System;
use futures_util::future::{LocalBoxFuture, join_all};
use imgwire_gate::stores::SessionAction;
use jiff::{SignedDuration, Timestamp};
use policies::{
    AcceptedIdentities, BoxFuture, Clock, Counter, Credentials, Denial, Facts, Hold, Pass,
    Policy as _, PolicyInput, PolicyName, Presented, QuotaStore, RateLimit, RateLimitSettings,
    Reservation, RoutePath, StoreUse, SystemClock, UploadRequest, Verdict, Window,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    backends::{Backend, Sqlite, main_store, open, suite},
    helpers::eventually,
    postgres::Postgres,
    redis_server::Redis,
};

suite! {
    [
        every_promise_of_a_quota_is_kept,
        a_quota_counts_as_a_plain_table_does,
    ]:
    quotas_in_a_file: Sqlite,
    quotas_in_a_redis: Redis,
    quotas_in_a_postgresql: Postgres,
}

suite! {
    [every_promise_of_a_rate_limit_is_kept,]:
    rate_limits_in_memory: Memory,
    rate_limits_in_a_redis: Redis,
}

suite! {
    [every_promise_of_sessions_is_kept,]:
    sessions_in_a_redis: Redis,
}

/// Opens a store on what was counted before.
type Open = Rc<dyn Fn() -> Arc<dyn QuotaStore>>;

/// A promise, which is kept on any store.
type Promise = fn(Open) -> LocalBoxFuture<'static, ()>;

fn system_clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

/// An empty store.
async fn empty(backend: &impl Backend) -> Open {
    backend.empty().await;
    let url = backend.url();
    Rc::new(move || {
        let stores = open(&url, &[StoreUse::Quotas], system_clock());
        stores.quotas(&main_store()).unwrap()
    })
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

async fn every_promise_of_a_quota_is_kept(backend: impl Backend) {
    for keep in QUOTA {
        keep(empty(&backend).await).await;
    }
}

/// Runs random steps on a store and on a plain table.
async fn a_quota_counts_as_a_plain_table_does(backend: impl Backend + Send) {
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

fn limit_settings(text: &str) -> RateLimitSettings {
    toml::from_str(text).unwrap()
}

struct Nobody;

impl Credentials for Nobody {
    fn authenticate<'a>(&'a self, _: &'a AcceptedIdentities) -> BoxFuture<'a, Presented> {
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
    let input = PolicyInput {
        request: &request,
        facts: &Facts::default(),
        pass,
    };
    let decision = limit.decide(input).await.unwrap();
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

/// Where rate limits without a store are counted.
struct Memory;

impl Backend for Memory {
    async fn found() -> Option<Self> {
        Some(Self)
    }

    fn url(&self) -> String {
        String::new()
    }

    async fn empty(&self) {}

    fn go_down(&mut self) {}

    async fn come_up(&mut self) {}
}

/// Opens a rate limit of these settings on what was counted before.
fn open_limit(backend: &impl Backend, settings: &str) -> RateLimit {
    let (url, name) = (backend.url(), PolicyName::parse("burst").unwrap());
    if url.is_empty() {
        return RateLimit::new(name, &limit_settings(settings), None, system_clock());
    }
    let settings = limit_settings(&format!("{settings}\nstore = 'main'"));
    let stores = open(&url, &[StoreUse::RateLimits], system_clock());
    let store = stores.rate_limits(&main_store()).unwrap();
    RateLimit::new(name, &settings, Some(store), system_clock())
}

/// Each part asks from an address of its own.
async fn every_promise_of_a_rate_limit_is_kept(backend: impl Backend) {
    let open = |settings: &str| open_limit(&backend, settings);
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
async fn a_redis_keeps_what_is_used_up_of_a_changed_rate_and_shows_no_address() {
    let Some(server) = Redis::here() else { return };
    let open = |settings: &str| open_limit(&server, settings);
    // A changed rate keeps what is used up: 15 of 20 used are 15 of 30.
    let limit = open("per = ['ip']\nlimit = 20\nperiod = '1h'");
    assert_eq!(passed(&limit, 5, 15).await, 15);
    let limit = open("per = ['ip']\nlimit = 30\nperiod = '1h'");
    assert_eq!(passed(&limit, 5, 64).await, 15);

    // Nobody's address is to be read in the keys, and all of them go by themselves.
    let mut keys = server.keys();
    keys.retain(|key| !key.contains(":probe:"));
    assert!(!keys.is_empty());
    for key in keys {
        assert!(key.starts_with("imgwire-gate:limit:burst:"), "{key}");
        assert!(!key.contains("192.0.2"), "{key}");
        let left: i64 = server.run(&["PTTL", &key]).parse().unwrap();
        assert!((1..=3_600_000).contains(&left), "{left}");
    }
}

async fn every_promise_of_sessions_is_kept(backend: impl Backend) {
    const HOUR: Duration = Duration::from_secs(60 * 60);
    let open = || {
        let stores = open(&backend.url(), &[StoreUse::Sessions], system_clock());
        stores.sessions(&main_store()).unwrap()
    };
    let (one, other) = (open(), open());
    let load = async |key: &str| other.act(key, SessionAction::Load).await.unwrap();
    let act = async |key: &str, action| assert_eq!(one.act(key, action).await, Ok(None));
    let save = |is_new, state: &str, ttl| SessionAction::Save {
        is_new,
        state: state.to_owned(),
        ttl,
    };
    assert_eq!(load("a").await, None);

    // What one gate writes, another one reads.
    act("a", save(true, "first", HOUR)).await;
    act("b", save(true, "another", HOUR)).await;
    assert_eq!(load("a").await.as_deref(), Some("first"));
    act("a", save(false, "second", HOUR)).await;
    assert_eq!(load("a").await.as_deref(), Some("second"));

    // A session that was ended stays ended, and no other one is.
    act("a", SessionAction::Delete).await;
    act("a", save(false, "third", HOUR)).await;
    act("a", SessionAction::Extend(HOUR)).await;
    assert_eq!(load("a").await, None);
    assert_eq!(load("b").await.as_deref(), Some("another"));

    // It ends when its time is over, unless it is extended.
    let short = Duration::from_millis(300);
    for key in ["c", "d"] {
        act(key, save(true, "short", short)).await;
    }
    act("d", SessionAction::Extend(HOUR)).await;
    eventually("its end", async || load("c").await.is_none()).await;
    assert_eq!(load("d").await.as_deref(), Some("short"));
}
