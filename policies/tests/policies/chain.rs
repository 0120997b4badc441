//! A chain: which policies run, which result stops the request, and what the chain reports.

use std::sync::Arc;

use futures_util::future::ready;
use policies::{
    BoxFuture, Chain, Condition, Decision, Denial, Evaluation, Expression, Fault, Link, Mode,
    NewFact, OnFailure, Outcome, Pass, Policy, PolicyInput, Reason, SystemClock, Verdict,
};
use proptest::prelude::*;
use serde_json::json;

use crate::{
    helpers::{finish, link, member_of, request_from, user},
    scripted::{Script, run, scripted, take_log},
};

pub(crate) fn script() -> impl Strategy<Value = (Script, bool, bool)> {
    const KINDS: &[Script] = &[
        Script::Allow,
        Script::Deny,
        Script::Fault,
        Script::Hold,
        Script::HoldWithoutCommit,
    ];
    (prop::sample::select(KINDS), any::<bool>(), any::<bool>())
}

/// How a chain of these policies must end, and what must happen on the way.
fn expected(scripts: &[(Script, bool, bool)], issued: bool) -> (&'static str, Vec<String>) {
    let mut log = Vec::new();
    let mut held: Vec<(usize, Script, bool)> = Vec::new();
    let release = |held: &[(usize, Script, bool)], log: &mut Vec<String>| {
        log.extend(
            held.iter()
                .rev()
                .map(|(index, ..)| format!("release {index}")),
        );
    };
    for (index, (script, observe, allow)) in scripts.iter().enumerate() {
        log.push(format!("ask {index}"));
        match script {
            Script::Deny if !observe => {
                release(&held, &mut log);
                return ("denied", log);
            }
            Script::Fault if !observe && !allow => {
                release(&held, &mut log);
                return ("faulted", log);
            }
            Script::Hold | Script::HoldWithoutCommit => {
                held.push((index, *script, *observe || *allow))
            }
            _ => {}
        }
    }
    if !issued {
        release(&held, &mut log);
        return ("not issued", log);
    }
    log.extend(held.iter().map(|(index, ..)| format!("commit {index}")));
    let fails = |(_, script, lenient): &(usize, Script, bool)| {
        *script == Script::HoldWithoutCommit && !lenient
    };
    if held.iter().any(fails) {
        release(&held, &mut log);
        return ("faulted", log);
    }
    ("issued", log)
}

proptest! {
    #[test]
    fn policies_run_in_order_until_one_stops_the_request_and_each_hold_is_settled_once(
        scripts in prop::collection::vec(script(), 0..6),
        issued in any::<bool>(),
    ) {
        take_log();
        let chain = Chain::new(links(&scripts).collect());
        let evaluation = finish(chain.evaluate(&request_from(1), Pass::Issue));
        let end = match evaluation.outcome {
            Outcome::Denied { .. } => "denied",
            Outcome::Faulted { .. } => "faulted",
            Outcome::Allowed(permit) if issued => match finish(permit.issued()) {
                Ok(_) => "issued",
                Err(_) => "faulted",
            },
            Outcome::Allowed(permit) => {
                finish(permit.not_issued());
                "not issued"
            }
        };
        prop_assert_eq!((end, take_log()), expected(&scripts, issued));
    }
}

/// Links to these policies, each with whether it is observed and whether its faults are tolerated.
fn links(scripts: &[(Script, bool, bool)]) -> impl Iterator<Item = Link> {
    let scripts = scripts.iter().enumerate();
    scripts.map(|(policy, (script, observe, allow))| {
        with_leniency(scripted(policy, *script), *observe, *allow)
    })
}

pub(crate) fn with_leniency(link: Link, observe: bool, allow: bool) -> Link {
    Link {
        mode: if observe {
            Mode::Observe
        } else {
            Mode::Enforce
        },
        on_failure: if allow {
            OnFailure::Allow
        } else {
            OnFailure::Deny
        },
        ..link
    }
}

fn evaluate(scripts: &[(Script, bool, bool)]) -> Evaluation {
    let chain = Chain::new(links(scripts).collect());
    finish(chain.evaluate(&request_from(1), Pass::Issue))
}

/// What the chain reports of results that did not stop the request.
fn reported(evaluation: &Evaluation) -> Vec<(&str, &'static str)> {
    let results = evaluation.tolerated.iter();
    let reported = results.map(|result| match result.reason {
        Reason::Denial(Denial::WorkspaceRequired(_)) => (result.policy.as_str(), "denial"),
        Reason::Fault(Fault::Store { .. }) => (result.policy.as_str(), "fault"),
        _ => panic!("no script has this result"),
    });
    reported.collect()
}

#[test]
fn a_denial_names_its_policy_and_reason() {
    let evaluation = evaluate(&[(Script::Allow, false, false), (Script::Deny, false, true)]);
    let Outcome::Denied { policy, denial } = evaluation.outcome else {
        panic!("the second policy denies");
    };
    assert_eq!(policy.as_str(), "policy-1");
    assert_eq!(denial.code(), "workspace_required");
    assert!(evaluation.tolerated.is_empty());
}

#[test]
fn a_fault_names_its_policy() {
    let evaluation = evaluate(&[(Script::Fault, false, false), (Script::Deny, false, false)]);
    let Outcome::Faulted { policy, fault } = evaluation.outcome else {
        panic!("the first policy faults");
    };
    assert_eq!(policy.as_str(), "policy-0");
    assert!(matches!(fault, Fault::Store { .. }));
}

#[test]
fn observed_denials_and_tolerated_faults_are_reported_and_do_not_stop_the_request() {
    let evaluation = evaluate(&[
        (Script::Deny, true, false),
        (Script::Fault, true, false),
        (Script::Fault, false, true),
    ]);
    assert!(matches!(evaluation.outcome, Outcome::Allowed(_)));
    let expected = [
        ("policy-0", "denial"),
        ("policy-1", "fault"),
        ("policy-2", "fault"),
    ];
    assert_eq!(reported(&evaluation), expected);
}

#[test]
fn a_policy_that_decides_despite_a_fault_allows_and_its_fault_is_reported() {
    let evaluation = evaluate(&[(Script::AllowDespiteFault, false, false)]);
    assert!(matches!(evaluation.outcome, Outcome::Allowed(_)));
    assert_eq!(reported(&evaluation), [("policy-0", "fault")]);
}

#[test]
fn limits_are_reported_in_order_except_those_of_observed_policies() {
    let evaluation = evaluate(&[
        (Script::Hold, false, false),
        (Script::Allow, true, false),
        (Script::Fault, false, true),
        (Script::Deny, false, false),
        (Script::Allow, false, false),
    ]);
    let limits = evaluation.limits.iter();
    let policies: Vec<_> = limits.map(|limit| limit.policy.as_str()).collect();
    assert_eq!(policies, ["policy-0", "policy-3"]);
}

/// Allows, and establishes a fact.
struct Establishes(fn() -> NewFact);

impl Policy for Establishes {
    fn decide<'a>(&'a self, _: PolicyInput<'a>) -> BoxFuture<'a, Decision> {
        let decision = Decision::from(Verdict::Allow).with_fact((self.0)());
        Box::pin(ready(Ok(decision)))
    }
}

#[test]
fn facts_of_a_policy_are_known_to_the_later_ones() {
    let user: fn() -> NewFact = || NewFact::Subject(user("user_1", &json!({})));
    let member: fn() -> NewFact = || NewFact::Membership(member_of("ws_1", Some("owner")));
    let condition = |text| {
        let expression = Expression::parse(text).unwrap();
        Some(Condition::new(expression, Arc::new(SystemClock::new())))
    };
    for facts in [[user, member], [member, user]] {
        let mut links = vec![scripted(0, Script::Deny), scripted(1, Script::Deny)];
        links[0].when = condition("has(subject.id) || has(workspace.id)");
        links[1].when = condition("subject.id != 'user_1' || workspace.role != 'owner'");
        let establish = facts.map(|fact| link("establishes", Arc::new(Establishes(fact))));
        links.splice(1..1, establish);
        let evaluation = finish(Chain::new(links).evaluate(&request_from(1), Pass::Issue));
        assert!(matches!(evaluation.outcome, Outcome::Allowed(_)));
        let subject = evaluation.facts.subject.unwrap();
        assert_eq!(subject.id.as_str(), "user_1");
        let membership = Some(member_of("ws_1", Some("owner")));
        assert_eq!(evaluation.facts.membership, membership);
    }
}

#[test]
fn a_hold_that_cannot_be_released_is_reported_with_the_denial() {
    let evaluation = evaluate(&[
        (Script::HoldWithoutRelease, false, false),
        (Script::Deny, false, false),
    ]);
    assert!(matches!(evaluation.outcome, Outcome::Denied { .. }));
    assert_eq!(reported(&evaluation), [("policy-0", "fault")]);
}

#[test]
fn a_chain_lists_its_policies_in_order() {
    let chain = Chain::new(vec![scripted(7, Script::Deny), scripted(3, Script::Hold)]);
    let names = chain.links().iter().map(|link| link.name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["policy-7", "policy-3"]);
}

#[test]
fn an_empty_chain_allows() {
    assert_eq!(run(Vec::new(), Pass::Issue), ("issued", Vec::new()));
}
