//! A trace of a chain: the result of each policy, and how long it took.

use std::{sync::Arc, time::Duration};

use policies::{
    BoxFuture, Chain, Condition, Decision, Expression, Link, Pass, Policy, PolicyInput, Step,
    StepResult, SystemClock, Trace, Verdict,
};

use crate::{
    chain::with_leniency,
    helpers::{StoppedClock, finish, link, request_from, yield_now},
    scripted::{
        Script::{Allow, AllowDespiteFault, Deny, Fault, Hold},
        counting, scripted,
    },
};

fn trace(links: Vec<Link>, clock: &StoppedClock) -> Vec<Step> {
    let mut trace = Trace::new(clock);
    let (chain, request) = (Chain::new(links), request_from(1));
    let _ = finish(chain.evaluate_and_trace(&request, Pass::Issue, &mut trace));
    trace.into_steps()
}

/// The result of a step without its text, and whether it was tolerated.
fn result(step: &Step) -> (&'static str, bool) {
    let result = match step.result {
        StepResult::Allow(_) => "allow",
        StepResult::Skip => "skip",
        StepResult::Deny(_) => "deny",
        StepResult::Fault(_) => "fault",
    };
    (result, step.tolerated)
}

fn skipped(link: Link) -> Link {
    let never = Expression::parse("false").unwrap();
    Link {
        when: Some(Condition::new(never, Arc::new(SystemClock::new()))),
        ..link
    }
}

#[test]
fn a_trace_has_the_result_of_each_policy_up_to_the_one_that_stops_the_request() {
    let links = vec![
        scripted(0, Allow),
        scripted(1, Hold),
        scripted(2, AllowDespiteFault),
        skipped(scripted(3, Deny)),
        with_leniency(scripted(4, Deny), true, false),
        with_leniency(scripted(5, Fault), true, false),
        with_leniency(scripted(6, Fault), false, true),
        // `on_failure = "allow"` tolerates faults, and not denials.
        with_leniency(scripted(7, Deny), false, true),
        scripted(8, Allow),
    ];
    let steps = trace(links, &StoppedClock::default());
    let expected = [
        ("allow", false),
        ("allow", false),
        ("allow", false),
        ("skip", false),
        ("deny", true),
        ("fault", true),
        ("fault", true),
        ("deny", false),
    ];
    assert_eq!(steps.iter().map(result).collect::<Vec<_>>(), expected);
    for (policy, step) in steps.iter().enumerate() {
        assert_eq!(step.policy.as_str(), format!("policy-{policy}"));
        assert_eq!(step.kind, "test");
        assert_eq!(step.condition_error, None);
    }
}

#[test]
fn a_trace_ends_with_an_enforced_fault() {
    let links = vec![scripted(0, Fault), scripted(1, Allow)];
    let steps = trace(links, &StoppedClock::default());
    assert_eq!(
        steps.iter().map(result).collect::<Vec<_>>(),
        [("fault", false)]
    );
}

/// Takes some milliseconds.
struct Slow(Arc<StoppedClock>, u64);

impl Policy for Slow {
    fn decide<'a>(&'a self, _: PolicyInput<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async {
            yield_now().await;
            self.0.advance(Duration::from_millis(self.1));
            Ok(Decision::from(Verdict::Allow))
        })
    }
}

/// When each step began and how long it took, in milliseconds.
fn times(steps: &[Step]) -> Vec<(u128, u128)> {
    let times = steps.iter();
    let times = times.map(|step| (step.began.as_millis(), step.took.as_millis()));
    times.collect()
}

#[test]
fn each_step_has_its_own_time() {
    let clock = Arc::new(StoppedClock::default());
    let slow = |millis| link("slow", Arc::new(Slow(clock.clone(), millis)));
    let links = vec![slow(5), skipped(slow(100)), slow(7), scripted(0, Allow)];
    assert_eq!(
        times(&trace(links, &clock)),
        [(0, 5), (5, 0), (5, 7), (12, 0)]
    );
}

#[test]
fn policies_that_run_together_all_take_the_time_of_their_group() {
    let clock = Arc::new(StoppedClock::default());
    let slow = |millis, at| Link {
        policy: Arc::new(Slow(clock.clone(), millis)),
        ..counting(0, Allow, at, true)
    };
    let links = vec![
        slow(1, "one"),
        slow(2, "one"),
        slow(4, "one"),
        slow(8, "other"),
        slow(16, "other"),
        slow(32, "third"),
    ];
    let expected = [(0, 7), (0, 7), (0, 7), (7, 24), (7, 24), (31, 32)];
    assert_eq!(times(&trace(links, &clock)), expected);
}
