//! A limit on its own, by key.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use policies::{AttemptResult, KeyedLimit, KeyedLimitSettings};

use crate::helpers::StoppedClock;

fn limit(clock: &Arc<StoppedClock>) -> KeyedLimit {
    let settings = KeyedLimitSettings::per_minute(NonZeroU32::new(2).unwrap());
    KeyedLimit::new(&settings, clock.clone())
}

fn is_allowed(taken: AttemptResult) -> bool {
    matches!(taken, AttemptResult::Allowed { .. })
}

#[test]
fn each_key_has_its_own_counter_and_peeking_counts_nothing() {
    let clock = Arc::new(StoppedClock::default());
    let limit = limit(&clock);
    for remaining in [1, 0] {
        for _ in 0..10 {
            let AttemptResult::Allowed {
                remaining: seen, ..
            } = limit.peek("one")
            else {
                panic!("one more is allowed");
            };
            assert_eq!(seen, remaining);
        }
        assert!(is_allowed(limit.take("one")));
    }
    let AttemptResult::Denied { retry_after, .. } = limit.peek("one") else {
        panic!("none is left");
    };
    assert_eq!(retry_after, Duration::from_secs(30));
    assert!(!is_allowed(limit.take("one")));
    assert!(is_allowed(limit.take("another")));
    clock.advance(Duration::from_secs(30));
    assert!(is_allowed(limit.take("one")));
}

#[test]
fn keys_beyond_the_maximum_share_one_counter_and_reset_no_other() {
    let clock = Arc::new(StoppedClock::default());
    let limit = limit(&clock);
    for _ in 0..2 {
        assert!(is_allowed(limit.take("limited")));
    }
    for key in 1..100_000 {
        assert!(is_allowed(limit.take(&key.to_string())));
    }
    let shared = (100_000..100_010).filter(|key| is_allowed(limit.take(&key.to_string())));
    assert_eq!(shared.count(), 2);
    assert!(!is_allowed(limit.take("limited")));
    assert!(is_allowed(limit.take("1")));
}
