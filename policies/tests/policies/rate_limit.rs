//! `rate_limit` against a plain model of GCRA.

use std::{collections::HashMap, sync::Arc, time::Duration};

use policies::{Denial, Facts, Pass, PolicyName, RateLimit, RateLimitSettings, Verdict};
use proptest::prelude::*;
use serde_json::json;

use crate::helpers::{StoppedClock, decide, request_from};

fn limiter(
    limit: u32,
    period: &str,
    burst: u32,
    max_keys: u32,
    clock: &Arc<StoppedClock>,
) -> RateLimit {
    let name = PolicyName::parse("burst").unwrap();
    let settings = settings(limit, period, burst, max_keys);
    RateLimit::new(name, &settings, None, clock.clone())
}

fn settings(limit: u32, period: &str, burst: u32, max_keys: u32) -> RateLimitSettings {
    let settings = json!({
        "per": ["ip"], "limit": limit, "period": period, "burst": burst, "max_keys": max_keys,
    });
    serde_json::from_value(settings).unwrap()
}

/// How long to wait, if the attempt is refused.
fn attempt(limiter: &RateLimit, from: u32, pass: Pass) -> Option<Duration> {
    let decision = decide(limiter, &request_from(from), &Facts::default(), pass);
    match decision.unwrap().verdict {
        Verdict::Allow => None,
        Verdict::Deny(Denial::RateLimited { retry_after, .. }) => Some(retry_after),
        _ => panic!("a rate limit allows or limits"),
    }
}

proptest! {
    #[test]
    fn a_changed_limit_keeps_the_attempts_that_each_key_used(
        before in 1..20_u32,
        after in 1..20_u32,
        asked in prop::collection::vec(0..25_u32, 1..5),
        // Keys past `max_keys` share a counter, and go on sharing it.
        shares in any::<bool>(),
    ) {
        let clock = Arc::new(StoppedClock::default());
        let max_keys = if shares { 1 } else { 100 };
        let earlier = limiter(before, "10s", before, max_keys, &clock);
        attempt(&earlier, 1_000, Pass::Issue);
        let mut used: HashMap<u32, u32> = HashMap::new();
        let counter = |key: u32| if shares { 0 } else { key };
        for (key, times) in (0..).zip(&asked) {
            let passed = (0..*times).filter(|_| attempt(&earlier, key, Pass::Issue).is_none());
            *used.entry(counter(key)).or_default() += passed.count() as u32;
        }
        let changed = earlier.changed(&settings(after, "1m", after, max_keys), None, clock.clone());
        for (counter, used) in used {
            let left = (0..30).filter(|_| attempt(&changed, counter, Pass::Issue).is_none()).count();
            prop_assert_eq!(left as u32, after.saturating_sub(used));
        }
    }

    #[test]
    fn a_rate_limit_decides_like_a_token_bucket(
        limit in 1..20_u32,
        burst in 1..20_u32,
        steps in prop::collection::vec((0..4_u32, 0..3_000_u64, any::<bool>()), 1..300),
    ) {
        let clock = Arc::new(StoppedClock::default());
        let limiter = limiter(limit, "10s", burst, 1_000_000, &clock);
        let interval = 10_000_000_000_u64.div_ceil(limit.into());
        let mut now = 0_u64;
        // The theoretical arrival time of each key's next attempt.
        let mut arrivals: HashMap<u32, u64> = HashMap::new();
        for (key, pause_ms, preview) in steps {
            clock.advance(Duration::from_millis(pause_ms));
            now += pause_ms * 1_000_000;
            let arrival = arrivals.get(&key).copied().unwrap_or(0).max(now);
            let tolerance = interval * u64::from(burst - 1);
            let wait = arrival.saturating_sub(tolerance).saturating_sub(now);
            let pass = if preview { Pass::Preview } else { Pass::Issue };
            let expected = (wait > 0).then_some(Duration::from_nanos(wait));
            prop_assert_eq!(attempt(&limiter, key, pass), expected);
            if wait == 0 && !preview {
                arrivals.insert(key, arrival + interval);
            }
        }
    }

    #[test]
    fn a_flood_of_keys_resets_no_limited_key(max_keys in 1..50_u32, flood in 1..500_u32) {
        let clock = Arc::new(StoppedClock::default());
        let limiter = limiter(1, "1h", 1, max_keys, &clock);
        prop_assert_eq!(attempt(&limiter, 0, Pass::Issue), None);
        let admitted = (1..=flood).filter(|key| attempt(&limiter, *key, Pass::Issue).is_none()).count();
        // Each key that has a counter of its own once, and all the others together once.
        prop_assert_eq!(admitted as u32, flood.min(max_keys));
        prop_assert!(attempt(&limiter, 0, Pass::Issue).is_some());
        clock.advance(Duration::from_secs(3600));
        prop_assert_eq!(attempt(&limiter, 0, Pass::Issue), None);
    }
}

#[test]
fn a_limit_in_memory_reports_what_remains_and_when_everything_comes_back() {
    let clock = Arc::new(StoppedClock::default());
    let limiter = limiter(4, "20s", 3, 100, &clock);
    let seconds = Duration::from_secs;
    for (remaining, resets_in) in [(2, 5), (1, 10), (0, 15), (0, 15)] {
        let decision = decide(&limiter, &request_from(1), &Facts::default(), Pass::Issue);
        let limit = decision.unwrap().limit.unwrap();
        assert_eq!(
            (limit.remaining, limit.resets_in),
            (remaining, seconds(resets_in))
        );
        assert_eq!((limit.limit, limit.window), (4, seconds(20)));
    }
    clock.advance(seconds(7));
    assert_eq!(attempt(&limiter, 1, Pass::Issue), None);
    assert_eq!(attempt(&limiter, 1, Pass::Issue), Some(seconds(3)));
}

#[test]
fn idle_keys_make_room_for_new_ones() {
    let clock = Arc::new(StoppedClock::default());
    let limiter = limiter(1, "1s", 1, 100, &clock);
    for round in 0..10 {
        let admitted =
            (0..200).filter(|key| attempt(&limiter, round * 1000 + key, Pass::Issue).is_none());
        // A hundred counters, and one for the rest.
        assert_eq!(admitted.count(), 101);
        clock.advance(Duration::from_secs(2));
    }
}

#[test]
fn memory_stays_bounded_with_a_million_different_keys() {
    let clock = Arc::new(StoppedClock::default());
    let limiter = limiter(1, "1h", 1, 100_000, &clock);
    let before = resident_kib();
    for key in 0..1_000_000 {
        let _ = attempt(&limiter, key, Pass::Issue);
    }
    let grown = resident_kib() - before;
    assert!(
        grown < 16 * 1024,
        "{grown} KiB for a hundred thousand counters"
    );
}

fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
