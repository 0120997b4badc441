//! What a chain holds is settled once it is known whether a token was issued.

use policies::{Chain, Fault, Outcome, Pass, Permit};

use crate::{
    chain::with_leniency,
    helpers::{finish, request_from},
    scripted::{
        Script::{self, Hold, HoldWithSlowCommit, HoldWithoutCommit, HoldWithoutRelease},
        scripted, take_log,
    },
};

/// The permit of a chain of these policies, each with whether its faults are tolerated.
fn permit(scripts: &[(Script, bool)]) -> Permit {
    let scripts = scripts.iter().enumerate();
    let links = scripts.map(|(policy, (script, is_tolerated))| {
        with_leniency(scripted(policy, *script), false, *is_tolerated)
    });
    let chain = Chain::new(links.collect());
    let evaluation = finish(chain.evaluate(&request_from(1), Pass::Issue));
    take_log();
    match evaluation.outcome {
        Outcome::Allowed(permit) => permit,
        _ => panic!("all policies allow"),
    }
}

#[test]
fn commits_do_not_wait_for_each_other() {
    let permit = permit(&[(HoldWithSlowCommit, false), (HoldWithSlowCommit, false)]);
    assert!(finish(permit.issued()).is_ok());
    let log = ["commit 0", "commit 1", "committed 0", "committed 1"];
    assert_eq!(take_log(), log);
}

#[test]
fn if_a_commit_fails_everything_is_released_last_first_and_the_fault_names_its_policy() {
    let permit = permit(&[(Hold, false), (HoldWithoutCommit, false), (Hold, false)]);
    let Err((policy, fault)) = finish(permit.issued()) else {
        panic!("the second commit fails");
    };
    assert_eq!(policy.as_str(), "policy-1");
    assert!(matches!(fault, Fault::Store { .. }));
    let log = [
        "commit 0",
        "commit 1",
        "commit 2",
        "release 2",
        "release 1",
        "release 0",
    ];
    assert_eq!(take_log(), log);
}

#[test]
fn a_tolerated_fault_of_a_commit_is_reported_and_releases_nothing() {
    let permit = permit(&[(Hold, false), (HoldWithoutCommit, true)]);
    let Ok(reported) = finish(permit.issued()) else {
        panic!("the fault is tolerated");
    };
    let reported: Vec<_> = reported.iter().map(|one| one.policy.as_str()).collect();
    assert_eq!(reported, ["policy-1"]);
    assert_eq!(take_log(), ["commit 0", "commit 1"]);
}

#[test]
fn if_no_token_is_issued_everything_is_released_last_first_even_if_a_release_fails() {
    let permit = permit(&[(Hold, false), (HoldWithoutRelease, false), (Hold, false)]);
    let reported = finish(permit.not_issued());
    let reported: Vec<_> = reported.iter().map(|one| one.policy.as_str()).collect();
    assert_eq!(reported, ["policy-1"]);
    assert_eq!(take_log(), ["release 2", "release 1", "release 0"]);
}

#[test]
fn a_permit_that_is_dropped_settles_nothing() {
    drop(permit(&[(Hold, false)]));
    assert!(take_log().is_empty());
}
