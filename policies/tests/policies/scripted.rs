//! Policies that follow a script and log what happens to them.

use std::{cell::RefCell, sync::Arc, time::Duration};

use futures_util::future::ready;
use policies::{
    BoxFuture, Chain, CounterStore, Decision, Denial, Fault, Hold, LimitState, Link, Outcome, Pass,
    Policy, PolicyInput, PolicyName, StoreName, Verdict,
};

use crate::helpers::{finish, link, request_from, yield_now};

/// What a scripted policy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    Allow,
    Deny,
    Fault,
    Hold,
    /// Holds after it waited for its store.
    HoldSlowly,
    /// Holds, and its commit fails.
    HoldWithoutCommit,
    /// Holds, and its release fails.
    HoldWithoutRelease,
    /// Allows although its store is down.
    AllowDespiteFault,
    /// Holds, and its commit waits for its store.
    HoldWithSlowCommit,
}

use Script::{
    Allow, AllowDespiteFault, Deny, HoldSlowly, HoldWithSlowCommit, HoldWithoutCommit,
    HoldWithoutRelease,
};

thread_local! {
    static LOG: RefCell<Vec<String>> = RefCell::default();
}

fn note(what: &str, policy: usize) {
    LOG.with_borrow_mut(|log| log.push(format!("{what} {policy}")));
}

/// What happened since the last call, in order.
pub(crate) fn take_log() -> Vec<String> {
    LOG.take()
}

pub(crate) fn store(name: &str) -> StoreName {
    StoreName::parse(name).unwrap()
}

pub(crate) fn store_is_down() -> Fault {
    Fault::Store {
        store: store("store"),
        source: "it is down".into(),
    }
}

/// The policy with this number.
pub(crate) struct Scripted(pub(crate) usize, pub(crate) Script);

impl Policy for Scripted {
    fn decide<'a>(&'a self, _: PolicyInput<'a>) -> BoxFuture<'a, Decision> {
        let Self(policy, script) = *self;
        Box::pin(async move {
            note("ask", policy);
            let verdict = match script {
                Allow | AllowDespiteFault => Verdict::Allow,
                Deny => Verdict::Deny(Denial::WorkspaceRequired("none".to_owned())),
                Script::Fault => return Err(store_is_down()),
                _ => Verdict::Hold(Box::new(ScriptedHold(policy, script))),
            };
            if script == HoldSlowly {
                yield_now().await;
                note("wake", policy);
            }
            let mut decision = Decision::from(verdict).with_limit(limit_of(policy));
            decision.tolerated_fault =
                (script == AllowDespiteFault).then(|| Box::new(store_is_down()));
            Ok(decision)
        })
    }
}

/// The limit that the policy with this number reports.
fn limit_of(policy: usize) -> LimitState {
    LimitState {
        policy: PolicyName::parse(&format!("policy-{policy}")).unwrap(),
        limit: 10,
        window: Duration::from_secs(60),
        remaining: 9,
        resets_in: Duration::from_secs(30),
    }
}

struct ScriptedHold(usize, Script);

fn fails_if(fails: bool) -> Result<(), Fault> {
    if fails { Err(store_is_down()) } else { Ok(()) }
}

impl Hold for ScriptedHold {
    fn commit(&mut self) -> BoxFuture<'_, ()> {
        note("commit", self.0);
        Box::pin(async {
            if self.1 == HoldWithSlowCommit {
                yield_now().await;
                note("committed", self.0);
            }
            fails_if(self.1 == HoldWithoutCommit)
        })
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, ()> {
        note("release", self.0);
        Box::pin(ready(fails_if(self.1 == HoldWithoutRelease)))
    }
}

/// A link to the policy with this number, which counts nowhere.
pub(crate) fn scripted(policy: usize, script: Script) -> Link {
    link(
        &format!("policy-{policy}"),
        Arc::new(Scripted(policy, script)),
    )
}

/// A link to the policy with this number, which counts in a store.
pub(crate) fn counting(policy: usize, script: Script, at: &str, can_release: bool) -> Link {
    Link {
        counter_store: Some(CounterStore {
            store: store(at),
            can_release,
        }),
        ..scripted(policy, script)
    }
}

/// How a chain ends if a token is issued for every allowed request, and what happened on the way.
pub(crate) fn run(links: Vec<Link>, pass: Pass) -> (&'static str, Vec<String>) {
    take_log();
    let (chain, request) = (Chain::new(links), request_from(1));
    let end = match finish(chain.evaluate(&request, pass)).outcome {
        Outcome::Allowed(permit) => match finish(permit.issued()) {
            Ok(_) => "issued",
            Err(_) => "faulted",
        },
        Outcome::Denied { .. } => "denied",
        Outcome::Faulted { .. } => "faulted",
    };
    (end, take_log())
}
