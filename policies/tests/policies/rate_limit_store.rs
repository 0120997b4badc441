//! `rate_limit`: counted in a store that several gates share, and what happens while it is down.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::ready;
use policies::{
    AttemptResult, BoxFuture, Counter, Decision, Denial, DenialClass, Fact, Facts, Fault,
    LimitOnFailure, OnFailure, Pass, Policy, PolicyKind as _, Rate, RateLimitSettings,
    RateLimitStore, ReachedLimit, StoreUse, Verdict,
};

use crate::{
    helpers::{StoppedClock, TestPorts, build, decide, rebuild, request_from, settings},
    scripted::{store, store_is_down},
};

const TABLE: &str = "per = ['ip']\nlimit = 2\nperiod = '10s'";

/// A store that records the attempts and gives the same answer to each. Without an answer it is down.
#[derive(Clone, Default)]
struct Shared {
    answer: Arc<Mutex<Option<AttemptResult>>>,
    attempts: Arc<Mutex<Vec<(Counter, Rate, Pass)>>>,
}

impl RateLimitStore for Shared {
    fn take(&self, counter: Counter, rate: Rate, pass: Pass) -> BoxFuture<'_, AttemptResult> {
        self.attempts.lock().unwrap().push((counter, rate, pass));
        Box::pin(ready(self.answer.lock().unwrap().ok_or_else(store_is_down)))
    }
}

impl Shared {
    fn answers(taken: AttemptResult) -> Self {
        let store = Self::default();
        *store.answer.lock().unwrap() = Some(taken);
        store
    }
}

fn ports(store: &Shared) -> TestPorts {
    TestPorts {
        rate_limits: Some(Arc::new(store.clone())),
        ..TestPorts::default()
    }
}

fn limit(rest: &str, store: &Shared) -> Arc<dyn Policy> {
    let settings: RateLimitSettings = settings(&format!("{TABLE}\nstore = 'redis'\n{rest}"));
    build(&settings, &ports(store), Arc::new(StoppedClock::default()))
}

fn attempt(policy: &dyn Policy, pass: Pass) -> Result<Decision, Fault> {
    decide(policy, &request_from(1), &Facts::default(), pass)
}

fn is_allowed(policy: &dyn Policy) -> bool {
    let decision = attempt(policy, Pass::Issue).unwrap();
    matches!(decision.verdict, Verdict::Allow)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_store_counts_by_policy_and_key_at_the_rate_of_the_settings() {
    let allowed = AttemptResult::Allowed {
        remaining: 6,
        resets_in: SECOND,
    };
    let store = Shared::answers(allowed);
    let policy = limit("burst = 7", &store);
    // A preview takes nothing, and reports what is left of the burst.
    for (pass, expected, resets_in) in [
        (Pass::Issue, (2, 6), SECOND),
        (Pass::Preview, (7, 7), Duration::ZERO),
    ] {
        let decision = attempt(&*policy, pass).unwrap();
        assert!(matches!(decision.verdict, Verdict::Allow));
        let limit = decision.limit.unwrap();
        assert_eq!(
            (limit.policy.as_str(), (limit.limit, limit.remaining)),
            ("policy", expected)
        );
        assert_eq!((limit.window, limit.resets_in), (10 * SECOND, resets_in));
        let (counter, rate, asked) = store.attempts.lock().unwrap().pop().unwrap();
        assert_eq!(
            (counter.policy.as_str(), counter.key.as_str()),
            ("policy", "0.0.0.1")
        );
        assert_eq!(
            (rate.interval(), rate.burst().get(), asked),
            (5 * SECOND, 7, pass)
        );
    }
}

#[test]
fn a_denial_of_the_store_says_when_to_retry() {
    let store = Shared::answers(AttemptResult::Denied {
        retry_after: SECOND,
        resets_in: 9 * SECOND,
    });
    let decision = attempt(&*limit("", &store), Pass::Issue).unwrap();
    let Verdict::Deny(denial) = decision.verdict else {
        panic!("the store denies");
    };
    assert_eq!(
        denial,
        Denial::RateLimited {
            retry_after: SECOND,
            reached: ReachedLimit::rate(2, 2, 10 * SECOND, "ip=0.0.0.1".to_owned()),
        }
    );
    let limit = decision.limit.unwrap();
    assert_eq!((limit.remaining, limit.resets_in), (0, 9 * SECOND));
}

#[test]
fn while_the_store_is_down_the_policy_faults_unless_this_process_counts() {
    for rest in ["", "on_failure = 'deny'", "on_failure = 'allow'"] {
        let decided = attempt(&*limit(rest, &Shared::default()), Pass::Issue);
        assert!(matches!(decided, Err(Fault::Store { .. })), "{rest}");
    }
}

#[test]
fn while_the_store_is_down_this_process_counts_and_reports_the_fault() {
    let policy = limit("on_failure = 'local'", &Shared::default());
    for _ in 0..2 {
        let decision = attempt(&*policy, Pass::Issue).unwrap();
        assert!(matches!(decision.verdict, Verdict::Allow));
        assert!(matches!(
            decision.tolerated_fault.as_deref(),
            Some(Fault::Store { .. })
        ));
    }
    let decision = attempt(&*policy, Pass::Issue).unwrap();
    assert!(matches!(
        decision.verdict,
        Verdict::Deny(Denial::RateLimited { .. })
    ));
    assert!(decision.tolerated_fault.is_some());
}

#[test]
fn a_reload_keeps_what_this_process_counted() {
    let (store, clock) = (Shared::default(), Arc::new(StoppedClock::default()));
    let with = |rest: &str, earlier| {
        let settings: RateLimitSettings = settings(&format!("{TABLE}\n{rest}"));
        rebuild(&settings, &ports(&store), clock.clone(), earlier)
    };
    let local = "store = 'redis'\non_failure = 'local'";
    let used_up = |rest| {
        let policy = with(rest, None);
        assert!(is_allowed(&*policy) && is_allowed(&*policy) && !is_allowed(&*policy));
        policy
    };
    for (before, after) in [
        ("", ""),
        ("", "burst = 1"),
        (local, local),
        (local, ""),
        ("", local),
    ] {
        let after_reload = with(after, Some(used_up(before)));
        assert!(!is_allowed(&*after_reload), "{before} {after}");
    }
    // A store keeps its own counts, and nothing counted here before.
    let shared = with("store = 'redis'", None);
    assert!(is_allowed(&*with("", Some(shared))));
}

#[test]
fn a_reload_without_a_change_keeps_a_policy_that_counts_in_memory() {
    let clock = Arc::new(StoppedClock::default());
    let is_kept = |table: &str, changed: &str| {
        let ports = ports(&Shared::default());
        let settings: RateLimitSettings = settings(table);
        let earlier = build(&settings, &ports, clock.clone());
        let settings: RateLimitSettings = self::settings(changed);
        let later = rebuild(&settings, &ports, clock.clone(), Some(earlier.clone()));
        Arc::ptr_eq(&earlier, &later)
    };
    assert!(is_kept(TABLE, TABLE));
    assert!(!is_kept(TABLE, &TABLE.replace('2', "3")));
    // The connection to a store may be another one.
    let shared = format!("{TABLE}\nstore = 'redis'");
    assert!(!is_kept(&shared, &shared));
}

#[test]
fn a_rate_says_what_remains_of_a_burst_and_when_to_retry() {
    let micros = Duration::from_micros;
    let rate = Rate::new(micros(100), NonZeroU32::new(5).unwrap());
    for (resets_in, remaining) in [(0, 5), (1, 4), (100, 4), (101, 3), (500, 0), (900, 0)] {
        let resets_in = micros(resets_in);
        assert_eq!(
            rate.allowed(resets_in),
            AttemptResult::Allowed {
                remaining,
                resets_in
            }
        );
    }
    for (resets_in, retry_after) in [(401, 1), (450, 50), (500, 100), (300, 0)] {
        let (resets_in, retry_after) = (micros(resets_in), micros(retry_after));
        assert_eq!(
            rate.denied(resets_in),
            AttemptResult::Denied {
                retry_after,
                resets_in
            }
        );
    }
}

#[test]
fn the_interval_of_a_rate_is_rounded_up_to_microseconds() {
    for (nanos, micros) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (2_500, 3)] {
        let rate = Rate::new(Duration::from_nanos(nanos), NonZeroU32::MIN);
        assert_eq!(rate.interval(), Duration::from_micros(micros));
    }
}

#[test]
fn a_limit_requires_the_facts_that_it_counts_by_and_its_store() {
    let memory: RateLimitSettings = settings(TABLE);
    let required = memory.requirements();
    assert_eq!(required.denies_with, DenialClass::Limited);
    assert!(required.needs.is_empty() && required.store.is_none());
    assert!(required.counter_store().is_none());
    assert_eq!(required.on_failure, Some(OnFailure::Deny));
    assert!(required.per.is_some());

    let table = "per = ['user', 'workspace']\nlimit = 2\nperiod = '10s'\nstore = 'redis'";
    for (written, on_failure) in [
        ("", OnFailure::Deny),
        ("on_failure = 'deny'", OnFailure::Deny),
        ("on_failure = 'local'", OnFailure::Deny),
        ("on_failure = 'allow'", OnFailure::Allow),
    ] {
        let shared: RateLimitSettings = settings(&format!("{table}\n{written}"));
        let required = shared.requirements();
        assert_eq!(required.on_failure, Some(on_failure), "{written}");
        assert_eq!(required.needs, [Fact::Subject, Fact::Membership]);
        assert_eq!(required.store, Some((store("redis"), StoreUse::RateLimits)));
        let counting = required.counter_store().unwrap();
        assert_eq!(
            (counting.store, counting.can_release),
            (store("redis"), false)
        );
    }
}

#[test]
fn a_description_names_the_limit_the_period_the_burst_and_the_place() {
    for (rest, parts) in [
        ("", ["2 in 10s", "address", "memory"]),
        ("burst = 9", ["2 in 10s", "9 at once", "memory"]),
        (
            "burst = 2\nstore = 'redis'",
            ["2 in 10s", "address", "redis"],
        ),
    ] {
        let text = settings::<RateLimitSettings>(&format!("{TABLE}\n{rest}")).describe();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        assert_eq!(text.contains("at once"), rest == "burst = 9", "{text}");
    }
}

#[test]
fn a_burst_comes_back_within_ten_years_and_only_a_store_can_fail() {
    let read = |table: &str| toml::from_str::<RateLimitSettings>(table);
    for (table, is_good) in [
        ("per = []\nlimit = 1\nperiod = '366d'\nburst = 10", true),
        ("per = []\nlimit = 1\nperiod = '366d'\nburst = 11", false),
        ("per = []\nlimit = 2\nperiod = '366d'\nburst = 20", true),
        ("per = []\nlimit = 2\nperiod = '366d'\nburst = 21", false),
        ("per = []\nlimit = 0\nperiod = '1s'", false),
        ("per = []\nlimit = 1\nperiod = '1s'\nmax_keys = 0", false),
        (
            "per = []\nlimit = 1\nperiod = '1s'\non_failure = 'local'",
            false,
        ),
        (
            "per = []\nlimit = 1\nperiod = '1s'\nstore = 's'\non_failure = 'local'",
            true,
        ),
    ] {
        assert_eq!(read(table).is_ok(), is_good, "{table}");
    }
    let default: RateLimitSettings = settings(&format!("{TABLE}\nstore = 's'"));
    assert_eq!(default.on_failure, LimitOnFailure::Deny);
}
