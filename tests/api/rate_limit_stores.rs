//! Rate limits: one suite, with one line for each place where they are counted.

use std::time::Duration;

use futures_util::future::join_all;
use policies::{
    AcceptedIdentities, BoxFuture, Clock as _, Credentials, Denial, Facts, Pass, Policy as _,
    PolicyInput, PolicyName, Presented, RateLimit, RateLimitSettings, RoutePath, StoreUse,
    SystemClock, UploadRequest, Verdict,
};

use crate::{
    backends::{Backend, main_store, open, suite, system_clock},
    helpers::eventually,
    redis_server::Redis,
};

suite! {
    [
        concurrent_attempts_never_exceed_the_limit_of_their_key,
        a_preview_consumes_nothing,
        attempts_return_one_by_one_and_no_boundary_doubles_the_limit,
    ]:
    in_memory: Memory,
    in_redis: Redis,
}

fn limit_settings(text: &str) -> RateLimitSettings {
    toml::from_str(text).unwrap()
}

struct NoCredentials;

impl Credentials for NoCredentials {
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
        credentials: Box::new(NoCredentials),
    };
    let evaluating = PolicyInput {
        request: &request,
        facts: &Facts::default(),
        pass,
    };
    let decision = limit.decide(evaluating).await.unwrap();
    let left = decision.limit.unwrap().remaining;
    match decision.verdict {
        Verdict::Allow => (None, left),
        Verdict::Deny(Denial::RateLimited { retry_after, .. }) => (Some(retry_after), left),
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

/// Opens a rate limit with these settings and the attempts that were counted before.
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

async fn concurrent_attempts_never_exceed_the_limit_of_their_key(backend: impl Backend) {
    let limit = open_limit(&backend, "per = ['ip']\nlimit = 20\nperiod = '1h'");
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
}

async fn a_preview_consumes_nothing(backend: impl Backend) {
    let limit = open_limit(&backend, "per = ['ip']\nlimit = 4\nperiod = '1h'");
    for _ in 0..9 {
        assert_eq!(attempt(&limit, 3, Pass::Preview).await, (None, 4));
    }
    assert_eq!(attempt(&limit, 3, Pass::Issue).await, (None, 3));
    assert_eq!(attempt(&limit, 3, Pass::Issue).await, (None, 2));
    assert_eq!(attempt(&limit, 3, Pass::Preview).await, (None, 2));
}

async fn attempts_return_one_by_one_and_no_boundary_doubles_the_limit(backend: impl Backend) {
    let limit = open_limit(
        &backend,
        "per = ['ip']\nlimit = 20\nperiod = '1s'\nburst = 5",
    );
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
async fn redis_keeps_the_used_attempts_of_a_changed_rate_and_its_keys_show_no_address() {
    let Some(server) = Redis::here() else { return };
    let open = |settings: &str| open_limit(&server, settings);
    // A changed rate keeps what is used up: 15 of 20 used are 15 of 30.
    let limit = open("per = ['ip']\nlimit = 20\nperiod = '1h'");
    assert_eq!(passed(&limit, 5, 15).await, 15);
    let limit = open("per = ['ip']\nlimit = 30\nperiod = '1h'");
    assert_eq!(passed(&limit, 5, 64).await, 15);

    // The keys reveal no address, and all of them expire.
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
