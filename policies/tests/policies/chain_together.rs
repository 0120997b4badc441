//! Neighbours of a chain that count in the same store run together, in one round trip to the store.

use std::sync::Arc;

use policies::{Chain, Condition, Expression, Link, Mode, Outcome, Pass, SystemClock};
use proptest::prelude::*;

use crate::{
    chain::{script, with_leniency},
    helpers::{finish, request_from},
    scripted::{
        Script::{self, Allow, Deny, Fault, Hold, HoldSlowly, HoldWithoutRelease},
        counting, run, scripted,
    },
};

/// Quotas that count in the store `shared`.
fn sharing(scripts: &[Script]) -> Vec<Link> {
    let scripts = scripts.iter().enumerate();
    scripts
        .map(|(policy, script)| counting(policy, *script, "shared", true))
        .collect()
}

#[test]
fn neighbours_that_share_a_store_do_not_wait_for_each_other() {
    let (end, log) = run(sharing(&[HoldSlowly, HoldSlowly, Hold]), Pass::Issue);
    assert_eq!(end, "issued");
    assert_eq!(
        log,
        [
            "ask 0", "ask 1", "ask 2", "wake 0", "wake 1", "commit 0", "commit 1", "commit 2"
        ]
    );
}

#[test]
fn if_the_second_of_three_neighbours_denies_the_others_release_what_they_hold_last_first() {
    for (script, end) in [(Deny, "denied"), (Fault, "faulted")] {
        let log = ["ask 0", "ask 1", "ask 2", "release 2", "release 0"];
        assert_eq!(
            run(sharing(&[Hold, script, Hold]), Pass::Issue),
            (end, log.map(str::to_owned).to_vec())
        );
    }
}

#[test]
fn if_the_first_of_several_neighbours_denies_the_others_release_what_they_hold_last_first() {
    for (first, end) in [(Deny, "denied"), (Fault, "faulted")] {
        // A rate limit in the same store cannot give back an attempt, so it may only come first.
        let links = vec![
            counting(0, first, "shared", false),
            counting(1, Hold, "shared", true),
            counting(2, Hold, "shared", true),
            counting(3, Hold, "other", true),
        ];
        let log = ["ask 0", "ask 1", "ask 2", "release 2", "release 1"];
        assert_eq!(
            run(links, Pass::Issue),
            (end, log.map(str::to_owned).to_vec())
        );
    }
}

#[test]
fn the_first_denial_in_the_written_order_ends_the_request() {
    let chain = Chain::new(sharing(&[Hold, Fault, Deny]));
    let evaluation = finish(chain.evaluate(&request_from(1), Pass::Issue));
    let Outcome::Faulted { policy, .. } = evaluation.outcome else {
        panic!("the second policy faults");
    };
    assert_eq!(policy.as_str(), "policy-1");
}

#[test]
fn an_observed_denial_among_neighbours_releases_nothing() {
    let mut links = sharing(&[Hold, Deny, Hold]);
    links[1].mode = Mode::Observe;
    let log = ["ask 0", "ask 1", "ask 2", "commit 0", "commit 2"];
    assert_eq!(
        run(links, Pass::Issue),
        ("issued", log.map(str::to_owned).to_vec())
    );
}

#[test]
fn a_neighbour_whose_release_fails_is_reported_with_the_denial() {
    let chain = Chain::new(sharing(&[Deny, HoldWithoutRelease]));
    let evaluation = finish(chain.evaluate(&request_from(1), Pass::Issue));
    let reported: Vec<_> = evaluation
        .tolerated
        .iter()
        .map(|result| result.policy.as_str())
        .collect();
    assert_eq!(reported, ["policy-1"]);
}

#[test]
fn neighbours_after_a_group_form_a_group_of_their_own() {
    let links = vec![
        counting(0, HoldSlowly, "shared", true),
        counting(1, HoldSlowly, "shared", true),
        counting(2, HoldSlowly, "other", true),
        counting(3, HoldSlowly, "other", true),
    ];
    let (_, log) = run(links, Pass::Preview);
    assert_eq!(
        log[..8],
        [
            "ask 0", "wake 0", "ask 1", "wake 1", "ask 2", "wake 2", "ask 3", "wake 3"
        ]
    );
    let links = vec![
        counting(0, HoldSlowly, "shared", true),
        counting(1, HoldSlowly, "shared", true),
        counting(2, HoldSlowly, "other", true),
        counting(3, HoldSlowly, "other", true),
    ];
    let (_, log) = run(links, Pass::Issue);
    assert_eq!(
        log[..8],
        [
            "ask 0", "ask 1", "wake 0", "wake 1", "ask 2", "ask 3", "wake 2", "wake 3"
        ]
    );
}

/// Asserts that a policy that denies keeps this neighbour from running.
#[track_caller]
fn assert_waits(neighbour: Link) {
    let links = vec![counting(0, Deny, "shared", true), neighbour];
    assert_eq!(
        run(links, Pass::Issue),
        ("denied", vec!["ask 0".to_owned()])
    );
}

#[test]
fn a_policy_that_counts_in_another_store_or_in_none_waits_for_its_turn() {
    assert_waits(counting(1, Hold, "other", true));
    assert_waits(scripted(1, Hold));
}

#[test]
fn a_policy_that_cannot_give_back_what_it_counts_waits_for_its_turn() {
    assert_waits(counting(1, Allow, "shared", false));
}

#[test]
fn a_policy_with_a_condition_waits_for_its_turn() {
    let expression = Expression::parse("request.route != ''").unwrap();
    assert_waits(Link {
        when: Some(Condition::new(expression, Arc::new(SystemClock::new()))),
        ..counting(1, Hold, "shared", true)
    });
}

#[test]
fn a_policy_that_counts_nowhere_runs_nothing_but_itself() {
    let links = vec![scripted(0, Deny), counting(1, Hold, "shared", true)];
    assert_eq!(
        run(links, Pass::Issue),
        ("denied", vec!["ask 0".to_owned()])
    );
}

#[test]
fn a_preview_runs_policies_one_after_another() {
    let links = sharing(&[Deny, Allow]);
    assert_eq!(
        run(links, Pass::Preview),
        ("denied", vec!["ask 0".to_owned()])
    );
}

proptest! {
    #[test]
    fn policies_that_run_together_end_as_if_they_ran_one_after_another(
        scripts in prop::collection::vec((script(), 0..3_usize, any::<bool>()), 0..7),
    ) {
        let links = |together: bool| {
            let links = scripts.iter().enumerate().map(|(index, ((script, observe, allow), store, can_release))| {
                let link = counting(index, *script, ["a", "b", "c"][*store], *can_release);
                let mut link = with_leniency(link, *observe, *allow);
                if !together {
                    link.counter_store = None;
                }
                link
            });
            links.collect::<Vec<_>>()
        };
        let (end, plain) = run(links(false), Pass::Issue);
        let (same_end, log) = run(links(true), Pass::Issue);
        prop_assert_eq!(end, same_end);
        let of = |log: &[String], what: &str| {
            let found = log.iter().filter_map(|line| line.strip_prefix(what)?.parse::<usize>().ok());
            let mut found: Vec<_> = found.collect();
            found.sort_unstable();
            found
        };
        prop_assert_eq!(of(&plain, "commit "), of(&log, "commit "));
        if end == "issued" {
            prop_assert_eq!(plain, log);
        } else {
            // Whatever was held is released, once.
            let asked = of(&log, "ask ");
            let holds = |index: &usize| matches!(scripts[*index].0.0, Script::Hold | Script::HoldWithoutCommit);
            prop_assert_eq!(of(&log, "release "), asked.into_iter().filter(holds).collect::<Vec<_>>());
        }
    }
}
