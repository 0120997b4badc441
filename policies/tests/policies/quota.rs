//! `quota`: a number of tokens per window, counted in a store.

use std::{sync::Arc, time::Duration};

use policies::{
    Chain, Decision, Denial, DenialClass, Fact, Facts, Fault, Link, Outcome, Pass, Per, Policy,
    PolicyKind as _, QuotaSettings, ReachedLimit, Reads, StoreUse, Verdict, WindowUnit,
};
use serde_json::json;

use crate::{
    helpers::{StoppedClock, TestPorts, build, decide, finish, link, request_from, settings, user},
    quota_store::{Failing, MemoryQuotas},
    scripted::{Script, counting, scripted, store},
};

const NOON: &str = "2026-03-10T12:00:00Z";
const HOUR: u64 = 3600;

/// A quota, its store and its clock, which shows noon in UTC.
struct Tested {
    policy: Arc<dyn Policy>,
    store: MemoryQuotas,
    clock: Arc<StoppedClock>,
}

fn quota(table: &str) -> Tested {
    let settings: QuotaSettings = settings(table);
    let (store, clock) = (MemoryQuotas::default(), Arc::new(StoppedClock::at(NOON)));
    let ports = TestPorts {
        quotas: Some(Arc::new(store.clone())),
        ..TestPorts::default()
    };
    Tested {
        policy: build(&settings, &ports, clock.clone()),
        store,
        clock,
    }
}

fn two_per_day() -> Tested {
    quota("per = ['user']\nlimit = 2\nwindow = 'day'\nstore = 'db'")
}

fn signed_in(id: &str) -> Facts {
    Facts::new(Some(user(id, &json!({}))), None)
}

impl Tested {
    fn decide(&self, facts: &Facts, pass: Pass) -> Result<Decision, Fault> {
        decide(&*self.policy, &request_from(1), facts, pass)
    }

    /// How many units are left after a request of `user_1`, and when the window ends.
    fn request(&self, pass: Pass) -> (Decision, u64, Duration) {
        let decision = self.decide(&signed_in("user_1"), pass).unwrap();
        let limit = decision.limit.clone().expect("a quota reports its limit");
        (decision, limit.remaining, limit.resets_in)
    }

    fn is_allowed(&self, pass: Pass) -> bool {
        !matches!(self.request(pass).0.verdict, Verdict::Deny(_))
    }
}

#[test]
fn a_quota_reserves_until_its_limit_and_then_denies_until_the_window_ends() {
    let quota = two_per_day();
    for remaining in [1, 0] {
        let (decision, left, resets_in) = quota.request(Pass::Issue);
        assert!(matches!(decision.verdict, Verdict::Hold(_)));
        assert_eq!(
            (left, resets_in),
            (remaining, Duration::from_secs(12 * HOUR))
        );
        let limit = decision.limit.unwrap();
        assert_eq!((limit.policy.as_str(), limit.limit), ("policy", 2));
        assert_eq!(limit.window, Duration::from_secs(24 * HOUR));
    }
    let (decision, left, resets_in) = quota.request(Pass::Issue);
    let retry_after = Duration::from_secs(12 * HOUR);
    let Verdict::Deny(denial) = decision.verdict else {
        panic!("the quota is used up");
    };
    assert_eq!(
        denial,
        Denial::QuotaExhausted {
            note: None,
            retry_after,
            reached: ReachedLimit::quota(2, WindowUnit::Day, "user=user_1".to_owned()),
        }
    );
    assert_eq!((left, resets_in), (0, retry_after));
    quota.clock.set("2026-03-11T00:00:00Z");
    assert_eq!(quota.request(Pass::Issue).1, 1);
}

#[test]
fn a_preview_reserves_nothing_and_denies_once_the_quota_is_used_up() {
    let quota = two_per_day();
    for remaining in [2, 2] {
        let (decision, left, _) = quota.request(Pass::Preview);
        assert!(matches!(decision.verdict, Verdict::Allow));
        assert_eq!(left, remaining);
    }
    assert!(quota.is_allowed(Pass::Issue) && quota.is_allowed(Pass::Preview));
    assert!(quota.is_allowed(Pass::Issue) && !quota.is_allowed(Pass::Preview));
}

#[test]
fn a_window_that_the_clock_set_back_does_not_reopen() {
    let quota = two_per_day();
    assert!(quota.is_allowed(Pass::Issue) && quota.is_allowed(Pass::Issue));
    quota.clock.set("2026-03-09T18:00:00Z");
    for pass in [Pass::Issue, Pass::Preview] {
        let (decision, left, resets_in) = quota.request(pass);
        // Until the end of the window that the store counts in.
        assert_eq!((left, resets_in), (0, Duration::from_secs(30 * HOUR)));
        let Verdict::Deny(Denial::QuotaExhausted { retry_after, .. }) = decision.verdict else {
            panic!("the quota is used up");
        };
        assert_eq!(retry_after, resets_in);
    }
}

#[test]
fn windows_follow_the_stores_time_in_the_configured_time_zone() {
    let quota = quota("per = []\nlimit = 5\nwindow = 'day'\nstore = 'db'\ntimezone = 'Asia/Tokyo'");
    quota.store.set_time("2026-03-10T14:00:00Z");
    assert_eq!(quota.request(Pass::Issue).2, Duration::from_secs(HOUR));
}

#[test]
fn each_user_has_a_counter_of_its_own() {
    let quota = two_per_day();
    let _ = quota.decide(&signed_in("user_1"), Pass::Issue);
    let _ = quota.decide(&signed_in("user_2"), Pass::Issue);
    assert_eq!(
        quota.store.take_log(),
        ["reserve policy/user_1", "reserve policy/user_2"]
    );
}

#[test]
fn a_claim_chooses_the_limit() {
    let quota = quota(
        "per = ['user']\nwindow = 'day'\nstore = 'db'\n\
         limit = { claim = '/org/plan', values = { pro = 100, free = 3 }, default = 1 }",
    );
    for (claims, limit) in [
        (json!({ "org": { "plan": "pro" } }), 100),
        (json!({ "org": { "plan": "free" } }), 3),
        (json!({ "org": { "plan": "unknown" } }), 1),
        (json!({ "org": { "plan": 7 } }), 1),
        (json!({}), 1),
    ] {
        let facts = Facts::new(Some(user("user_1", &claims)), None);
        let decision = quota.decide(&facts, Pass::Preview).unwrap();
        assert_eq!(decision.limit.unwrap().limit, limit, "{claims}");
    }
    let decision = quota.decide(&Facts::default(), Pass::Preview).unwrap();
    assert_eq!(decision.limit.unwrap().limit, 1);
}

#[test]
fn if_the_store_fails_the_quota_faults() {
    for failing in [Failing::Clock, Failing::Counters] {
        let quota = two_per_day();
        quota.store.fail(failing);
        for pass in [Pass::Issue, Pass::Preview] {
            let decided = quota.decide(&signed_in("user_1"), pass);
            assert!(matches!(decided, Err(Fault::Store { .. })));
        }
        let counters = quota.policy.counters().unwrap();
        assert!(finish(counters.used("user_1")).is_err());
        assert!(finish(counters.give_back("user_1")).is_err());
    }
}

#[test]
fn an_operator_sees_what_is_counted_and_gives_it_back() {
    let quota = two_per_day();
    let counters = quota.policy.counters().unwrap();
    let used = || {
        let (used, window) = finish(counters.used("user_1")).unwrap();
        assert_eq!(window.start.to_string(), "2026-03-10T00:00:00Z");
        used
    };
    assert_eq!(used(), 0);
    let _ = quota.request(Pass::Issue);
    assert_eq!(used(), 1);
    finish(counters.give_back("user_1")).unwrap();
    assert_eq!(used(), 0);
}

/// A chain of a quota of two tokens per day and another policy, with the store of the quota.
fn chain_with(other: Link) -> (Chain, Tested) {
    let quota = two_per_day();
    let quota_link = Link {
        counter_store: other.counter_store.clone(),
        ..link("policy", quota.policy.clone())
    };
    (Chain::new(vec![quota_link, other]), quota)
}

#[test]
fn a_denial_after_a_quota_gives_back_the_reserved_unit() {
    for other in [
        scripted(1, Script::Deny),
        counting(1, Script::Deny, "db", true),
    ] {
        let (chain, quota) = chain_with(other);
        let evaluation = finish(chain.evaluate(&request_from(1), Pass::Issue));
        assert!(matches!(evaluation.outcome, Outcome::Denied { .. }));
        assert_eq!(
            quota.store.take_log(),
            ["reserve policy/", "release policy/"]
        );
        assert_eq!(
            finish(quota.policy.counters().unwrap().used("")).unwrap().0,
            0
        );
    }
}

#[test]
fn an_issued_token_commits_its_unit_and_keeps_it_counted() {
    let (chain, quota) = chain_with(scripted(1, Script::Allow));
    let evaluation = finish(chain.evaluate(&request_from(1), Pass::Issue));
    let Outcome::Allowed(permit) = evaluation.outcome else {
        panic!("both allow");
    };
    assert!(finish(permit.issued()).is_ok());
    assert_eq!(
        quota.store.take_log(),
        ["reserve policy/", "commit policy/"]
    );
    assert_eq!(
        finish(quota.policy.counters().unwrap().used("")).unwrap().0,
        1
    );
}

#[test]
fn a_quota_needs_the_facts_that_it_counts_by_and_the_claim_of_its_limit() {
    let fixed: QuotaSettings =
        settings("per = ['workspace']\nlimit = 5\nwindow = 'week'\nstore = 'db'");
    let required = fixed.requirements();
    assert_eq!(required.needs, [Fact::Membership]);
    assert_eq!(required.claims, Reads::default());
    assert_eq!(required.denies_with, DenialClass::Limited);
    assert_eq!(required.store, Some((store("db"), StoreUse::Quotas)));
    let per: Per = serde_json::from_value(json!(["workspace"])).unwrap();
    assert_eq!(required.per, Some(per));

    for (per, needs) in [
        ("['workspace']", vec![Fact::Subject, Fact::Membership]),
        (
            "['user', 'workspace']",
            vec![Fact::Subject, Fact::Membership],
        ),
        ("['user']", vec![Fact::Subject]),
        ("['ip']", vec![Fact::Subject]),
    ] {
        let by_claim: QuotaSettings = settings(&format!(
            "per = {per}\nwindow = 'day'\nstore = 'db'\n\
             limit = {{ claim = 'plan', values = {{}}, default = 1 }}"
        ));
        let required = by_claim.requirements();
        assert_eq!(required.needs, needs, "{per}");
        let claims = json!({ "plan": "pro", "other": 1 });
        let read = required.claims.of(claims.as_object().unwrap());
        assert_eq!(json!(read), json!({ "plan": "pro" }));
    }
}

#[test]
fn a_description_names_the_limit_the_window_what_it_counts_by_and_the_store() {
    let describe = |limit: &str, window: &str| {
        let table =
            format!("per = ['user', 'ip']\nlimit = {limit}\nwindow = '{window}'\nstore = 'db'");
        settings::<QuotaSettings>(&table).describe()
    };
    for window in ["hour", "day", "week", "month"] {
        let text = describe("5", window);
        for part in ["5", window, "user", "address", "db"] {
            assert!(text.contains(part), "{text}");
        }
    }
    let text = describe("{ claim = 'plan', values = {}, default = 1 }", "day");
    assert!(text.contains("plan"), "{text}");
}

#[test]
fn a_limit_is_a_number_or_depends_on_a_claim() {
    let read = |rest: &str| {
        let table = format!("per = []\nwindow = 'day'\nstore = 'db'\n{rest}");
        toml::from_str::<QuotaSettings>(&table).map_err(|error| error.to_string())
    };
    for good in [
        "limit = 0",
        "limit = 9223372036854775807",
        "limit = { claim = '/o/plan', values = { pro = 1 }, default = 0 }",
        "limit = 1\ntimezone = 'Europe/Berlin'",
    ] {
        assert!(read(good).is_ok(), "{good}");
    }
    for bad in [
        "limit = -1",
        "limit = { claim = 'plan', values = { pro = 1 } }",
        "limit = { claim = 'plan', values = {}, default = 1, other = 2 }",
        "limit = 1\ntimezone = 'Europe/Gate'",
        "limit = 1\nlimits = 2",
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
    let error = read("limit = 'five'").unwrap_err();
    assert!(
        error.contains("a number") && error.contains("claim"),
        "{error}"
    );
    let json = json!({ "per": [], "window": "day", "store": "db", "limit": u64::MAX });
    assert!(serde_json::from_value::<QuotaSettings>(json).is_ok());
}
