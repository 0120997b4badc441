//! The chain: every mix of policies, and what becomes of what they hold.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, Mutex},
};

use futures_util::{FutureExt as _, future::ready};
use policies::{
    BoxFuture, Chain, CounterStore, Decision, Denial, Fault, Hold, Link, Mode, OnFailure, Outcome,
    Pass, Policy, PolicyInput, StoreName, Verdict,
};
use proptest::prelude::*;

use crate::helpers::{link, request_from};

/// What a scripted policy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    Allow,
    Deny,
    Fault,
    Hold,
    /// Holds, and cannot say afterwards that it was counted.
    HoldAndFail,
}

thread_local! {
    static LOG: Rc<RefCell<Vec<String>>> = Rc::default();
}

fn note(text: String) {
    LOG.with(|log| log.borrow_mut().push(text));
}

fn fault() -> Fault {
    let store = StoreName::parse("store").unwrap();
    Fault::Store {
        store,
        source: "it is down".into(),
    }
}

struct Scripted(usize, Script);

impl Policy for Scripted {
    fn decide<'a>(&'a self, _: PolicyInput<'a>) -> BoxFuture<'a, Decision> {
        note(format!("ask {}", self.0));
        Box::pin(ready(match self.1 {
            Script::Allow => Ok(Decision::from(Verdict::Allow)),
            Script::Deny => Ok(Decision::from(Verdict::Deny(Denial::WorkspaceRequired))),
            Script::Fault => Err(fault()),
            Script::Hold => Ok(Decision::from(Verdict::Hold(Box::new(Held(self.0, true))))),
            Script::HoldAndFail => Ok(Decision::from(Verdict::Hold(Box::new(Held(self.0, false))))),
        }))
    }
}

struct Held(usize, bool);

impl Hold for Held {
    fn commit(&mut self) -> BoxFuture<'_, ()> {
        note(format!("commit {}", self.0));
        Box::pin(ready(if self.1 { Ok(()) } else { Err(fault()) }))
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, ()> {
        note(format!("release {}", self.0));
        Box::pin(ready(Ok(())))
    }
}

fn script() -> impl Strategy<Value = (Script, bool, bool)> {
    const KINDS: &[Script] = &[
        Script::Allow,
        Script::Deny,
        Script::Fault,
        Script::Hold,
        Script::HoldAndFail,
    ];
    (prop::sample::select(KINDS), any::<bool>(), any::<bool>())
}

/// What is to happen, told plainly.
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
            Script::Hold | Script::HoldAndFail => held.push((index, *script, *observe || *allow)),
            _ => {}
        }
    }
    if !issued {
        release(&held, &mut log);
        return ("not issued", log);
    }
    log.extend(held.iter().map(|(index, ..)| format!("commit {index}")));
    let fails =
        |(_, script, lenient): &(usize, Script, bool)| *script == Script::HoldAndFail && !lenient;
    if held.iter().any(fails) {
        release(&held, &mut log);
        return ("faulted", log);
    }
    ("issued", log)
}

proptest! {
    #[test]
    fn it_asks_in_order_stops_at_the_first_no_and_settles_everything_once(
        scripts in prop::collection::vec(script(), 0..6),
        issued in any::<bool>(),
    ) {
        LOG.with(|log| log.borrow_mut().clear());
        let links = scripts.iter().enumerate().map(|(index, (script, observe, allow))| {
            let mut link = link(&format!("policy-{index}"), Arc::new(Scripted(index, *script)));
            link.mode = if *observe { Mode::Observe } else { Mode::Enforce };
            link.on_failure = if *allow { OnFailure::Allow } else { OnFailure::Deny };
            link
        });
        let chain = Chain::new(links.collect());
        let request = request_from(1);
        let evaluation = chain.evaluate(&request, Pass::Issue).now_or_never().unwrap();
        let end = match evaluation.outcome {
            Outcome::Denied { .. } => "denied",
            Outcome::Faulted { .. } => "faulted",
            Outcome::Allowed(permit) if issued => match permit.issued().now_or_never().unwrap() {
                Ok(_) => "issued",
                Err(_) => "faulted",
            },
            Outcome::Allowed(permit) => {
                permit.not_issued().now_or_never().unwrap();
                "not issued"
            }
        };
        let log = LOG.with(|log| log.borrow().clone());
        prop_assert_eq!((end, log), expected(&scripts, issued));
    }
}

/// A link that counts in a store.
fn counting_link(index: usize, script: Script, store: &str, can_release: bool) -> Link {
    Link {
        counter_store: Some(CounterStore {
            store: StoreName::parse(store).unwrap(),
            can_release,
        }),
        ..link(
            &format!("policy-{index}"),
            Arc::new(Scripted(index, script)),
        )
    }
}

/// How a chain ends, and what was done on the way.
fn run(links: Vec<Link>, pass: Pass) -> (&'static str, Vec<String>) {
    LOG.with(|log| log.borrow_mut().clear());
    let chain = Chain::new(links);
    let request = request_from(1);
    let evaluation = chain.evaluate(&request, pass).now_or_never().unwrap();
    let end = match evaluation.outcome {
        Outcome::Allowed(permit) => match permit.issued().now_or_never().unwrap() {
            Ok(_) => "issued",
            Err(_) => "faulted",
        },
        Outcome::Denied { .. } => "denied",
        Outcome::Faulted { .. } => "faulted",
    };
    (end, LOG.with(|log| log.borrow().clone()))
}

#[test]
fn neighbours_that_share_a_store_are_asked_together_if_they_can_give_back_what_they_count() {
    use Script::{Allow, Deny, Fault, Hold};

    // What the one in front does not let pass is given back.
    for (first, end) in [(Deny, "denied"), (Fault, "faulted")] {
        let links = vec![
            counting_link(0, first, "shared", false),
            counting_link(1, Hold, "shared", true),
            counting_link(2, Hold, "shared", true),
            counting_link(3, Hold, "other", true),
        ];
        let log = ["ask 0", "ask 1", "ask 2", "release 2", "release 1"];
        assert_eq!(
            run(links, Pass::Issue),
            (end, log.map(str::to_owned).into())
        );
    }
    // An attempt cannot be given back, so it is not counted before its turn; nor is anything in a preview.
    let links = |first| {
        vec![
            counting_link(0, first, "shared", true),
            counting_link(1, Allow, "shared", false),
        ]
    };
    assert_eq!(
        run(links(Deny), Pass::Issue),
        ("denied", vec!["ask 0".to_owned()])
    );
    let links = vec![
        counting_link(0, Deny, "shared", false),
        counting_link(1, Allow, "shared", true),
    ];
    assert_eq!(
        run(links, Pass::Preview),
        ("denied", vec!["ask 0".to_owned()])
    );
}

proptest! {
    #[test]
    fn policies_that_are_asked_together_come_to_the_same_end_as_one_by_one(
        scripts in prop::collection::vec((script(), 0..3_usize, any::<bool>()), 0..7),
    ) {
        let links = |together: bool| {
            let links = scripts.iter().enumerate().map(|(index, ((script, observe, allow), store, can_release))| {
                let mut link = counting_link(index, *script, ["a", "b", "c"][*store], *can_release);
                link.mode = if *observe { Mode::Observe } else { Mode::Enforce };
                link.on_failure = if *allow { OnFailure::Allow } else { OnFailure::Deny };
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
            let holds = |index: &usize| matches!(scripts[*index].0.0, Script::Hold | Script::HoldAndFail);
            prop_assert_eq!(of(&log, "release "), asked.into_iter().filter(holds).collect::<Vec<_>>());
        }
    }
}

#[test]
fn an_observed_denial_and_a_tolerated_fault_are_told_apart() {
    let observed = Mutex::new(Vec::new());
    for (script, expected) in [(Script::Deny, "denial"), (Script::Fault, "fault")] {
        let mut link = link("policy", Arc::new(Scripted(0, script)));
        link.mode = Mode::Observe;
        let request = request_from(1);
        let chain = Chain::new(vec![link]);
        let evaluation = chain
            .evaluate(&request, Pass::Issue)
            .now_or_never()
            .unwrap();
        let reason = match &evaluation.tolerated[0].reason {
            policies::Reason::Denial(_) => "denial",
            policies::Reason::Fault(_) => "fault",
        };
        observed.lock().unwrap().push((reason, expected));
    }
    assert!(
        observed
            .into_inner()
            .unwrap()
            .iter()
            .all(|(reason, expected)| reason == expected)
    );
}
