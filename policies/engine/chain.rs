//! Chains: the policies of a route, evaluated in order.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tracing::{Instrument as _, field::Empty};

use crate::{
    Clock, Condition, Decision, Denial, DenialClass, EvaluationError, Fact, Facts, Fault,
    LimitState, Mode, OnFailure, Pass, Permit, Policy, PolicyInput, PolicyName, Reason, Step,
    StepResult, StorageCharge, StorageState, StoreName, Tolerated, UploadRequest, Verdict,
    engine::policy::Held,
};

/// One policy of a chain, with how its result is used.
#[derive(Clone)]
pub struct Link {
    /// The policy's name in the config.
    pub name: PolicyName,
    /// The kind of the policy, for example `rate_limit`.
    pub kind: &'static str,
    /// Whether denials of the policy are enforced.
    pub mode: Mode,
    /// Whether faults of the policy stop the request.
    pub on_failure: OnFailure,
    /// The policy is skipped if this is false. Without a condition it always runs.
    pub when: Option<Condition>,
    /// The fact that the policy provides to later policies.
    pub provides: Option<Fact>,
    /// The store in which the policy counts, if any.
    pub counter_store: Option<CounterStore>,
    /// The policy itself, shared by all chains that name it.
    pub policy: Arc<dyn Policy>,
}

/// The store in which a policy counts. The chain evaluates neighbours that share a store together, so that they cost
/// one round trip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterStore {
    /// The name of the store.
    pub store: StoreName,
    /// Whether its counts can be released. Only then may the policy run before the earlier policies have decided.
    pub can_release: bool,
}

/// The policies of a route, evaluated in the written order.
pub struct Chain {
    links: Vec<Link>,
    /// For each link, how many of the following links are evaluated together with it.
    followers: Vec<usize>,
}

/// The result of a chain.
pub struct Evaluation {
    /// Whether the request is allowed.
    pub outcome: Outcome,
    /// The facts that the policies established.
    pub facts: Facts,
    /// The state of each enforced limit that was evaluated, in the order of the chain.
    pub limits: Vec<LimitState>,
    /// The state of each enforced limit of storage, in the order of the chain. Only a preview has it.
    pub storage: Vec<StorageState>,
    /// Denials and faults that did not stop the request.
    pub tolerated: Vec<Tolerated>,
}

/// How a chain ends.
pub enum Outcome {
    /// Every policy allowed the request.
    Allowed(Permit),
    /// A policy denied the request. All reservations are released.
    Denied {
        /// The name of the policy.
        policy: PolicyName,
        /// Why the policy denied.
        denial: Denial,
    },
    /// A policy could not decide. All reservations are released.
    Faulted {
        /// The name of the policy.
        policy: PolicyName,
        /// Why the policy could not decide.
        fault: Fault,
    },
}

impl Outcome {
    fn is_limit(&self) -> bool {
        matches!(self, Self::Denied { denial, .. } if denial.class() == DenialClass::Limited)
    }

    fn is_undescribed(&self) -> bool {
        matches!(
            self,
            Self::Denied {
                denial: Denial::FileRequired(_),
                ..
            }
        )
    }
}

/// Records the result of each policy, for explanations and traces.
pub struct Trace<'a> {
    clock: &'a dyn Clock,
    steps: Vec<Step>,
}

impl<'a> Trace<'a> {
    /// Begins an empty trace. `clock` times the steps.
    #[must_use]
    pub fn new(clock: &'a dyn Clock) -> Self {
        Self {
            clock,
            steps: Vec::new(),
        }
    }

    /// Returns the steps in order, up to the policy that ended the request.
    #[must_use]
    pub fn into_steps(self) -> Vec<Step> {
        self.steps
    }

    fn note(
        &mut self,
        link: &Link,
        result: StepResult,
        condition_error: Option<EvaluationError>,
        tolerated: bool,
        began: Duration,
    ) {
        self.steps.push(Step {
            policy: link.name.clone(),
            kind: link.kind,
            result,
            condition_error,
            tolerated,
            began,
            took: self.clock.elapsed().saturating_sub(began),
        });
    }
}

impl Link {
    /// Asks the policy. If traces are recorded, this is a span of its own.
    async fn decide(&self, input: PolicyInput<'_>) -> Result<Decision, Fault> {
        let span = tracing::debug_span!(
            "policy",
            otel.name = %format_args!("policy {}", self.name),
            otel.status_code = Empty,
            otel.status_description = Empty,
            imgwire_gate.policy = self.name.as_str(),
            imgwire_gate.kind = self.kind,
            imgwire_gate.verdict = Empty,
            imgwire_gate.reason = Empty,
            imgwire_gate.tolerated = Empty,
        );
        if span.is_disabled() {
            return self.policy.decide(input).await;
        }
        let decided = self.policy.decide(input).instrument(span.clone()).await;
        let result = StepResult::of(&decided);
        span.record("imgwire_gate.tolerated", self.tolerates(&result));
        match result {
            StepResult::Allow(_) | StepResult::Skip => span.record("imgwire_gate.verdict", "allow"),
            StepResult::Deny(reason) => span
                .record("imgwire_gate.verdict", "deny")
                .record("imgwire_gate.reason", reason),
            StepResult::Fault(reason) => span
                .record("imgwire_gate.verdict", "fault")
                .record("otel.status_code", "ERROR")
                .record("otel.status_description", reason),
        };
        decided
    }

    /// Whether the request continues despite this result.
    fn tolerates(&self, result: &StepResult) -> bool {
        let observed = self.mode == Mode::Observe;
        match result {
            StepResult::Deny(_) => observed,
            StepResult::Fault(_) => observed || self.on_failure == OnFailure::Allow,
            StepResult::Allow(_) | StepResult::Skip => false,
        }
    }
}

impl Chain {
    /// Creates a chain that evaluates its policies in this order.
    #[must_use]
    pub fn new(links: Vec<Link>) -> Self {
        let followers = (0..links.len())
            .map(|index| followers(&links[index..]))
            .collect();
        Self { links, followers }
    }

    /// Returns the policies in order.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Evaluates the policies in order and stops at the first denial or fault. The reservations of earlier policies are
    /// then released in reverse order. A [`Pass::Preview`] continues after a reached limit, to report the later limits,
    /// and skips policies on a file that the request does not describe.
    pub async fn evaluate(&self, request: &UploadRequest, pass: Pass) -> Evaluation {
        self.evaluate_with(request, pass, None).await
    }

    /// Like [`evaluate`](Self::evaluate), and records the result of each policy. Even a preview stops at the first reached
    /// limit.
    pub async fn evaluate_and_trace(
        &self,
        request: &UploadRequest,
        pass: Pass,
        trace: &mut Trace<'_>,
    ) -> Evaluation {
        self.evaluate_with(request, pass, Some(trace)).await
    }

    async fn evaluate_with(
        &self,
        request: &UploadRequest,
        pass: Pass,
        mut trace: Option<&mut Trace<'_>>,
    ) -> Evaluation {
        let mut facts = Facts::default();
        let mut limits = Vec::with_capacity(self.links.len());
        let mut tolerated = Vec::new();
        let mut held = Vec::new();
        let mut charges = Vec::new();
        let mut storage = Vec::new();
        // Results of policies that were evaluated together with an earlier one.
        let mut already_decided = VecDeque::new();
        let mut began_together = None;
        let continues_after_limits = pass == Pass::Preview && trace.is_none();
        let mut reached = None;

        for (index, link) in self.links.iter().enumerate() {
            let observed = link.mode == Mode::Observe;
            let lenient = observed || link.on_failure == OnFailure::Allow;
            let began = match began_together {
                Some(began) if !already_decided.is_empty() => Some(began),
                _ => trace.as_ref().map(|trace| trace.clock.elapsed()),
            };
            let condition = link.when.as_ref();
            let condition = condition.map(|when| when.evaluate(request, &facts));
            if condition == Some(Ok(false)) {
                if let (Some(trace), Some(began)) = (trace.as_deref_mut(), began) {
                    trace.note(link, StepResult::Skip, None, false, began);
                }
                continue;
            }
            let input = PolicyInput {
                request,
                facts: &facts,
                pass,
            };
            let decided = if let Some(decided) = already_decided.pop_front() {
                decided
            } else if self.followers[index] == 0 || pass == Pass::Preview {
                link.decide(input).await
            } else {
                began_together = began;
                let together = &self.links[index..=index + self.followers[index]];
                let asked = together.iter().map(|link| link.decide(input));
                let mut decided = join_all(asked).await.into_iter();
                let first = decided.next().expect("the link itself was evaluated");
                already_decided.extend(decided);
                first
            };
            if let (Some(trace), Some(began)) = (trace.as_deref_mut(), began) {
                let result = StepResult::of(&decided);
                let tolerated = link.tolerates(&result);
                let condition_error = condition.and_then(Result::err);
                trace.note(link, result, condition_error, tolerated, began);
            }
            let stop = match decided {
                Ok(Decision {
                    verdict,
                    limit,
                    charge,
                    storage: state,
                    new_fact,
                    tolerated_fault,
                    note: _,
                }) => {
                    if let Some(limit) = limit.filter(|_| !observed) {
                        limits.push(limit);
                    }
                    if let Some(charge) = charge {
                        charges.push(StorageCharge {
                            is_enforced: !observed,
                            ..*charge
                        });
                    }
                    storage.extend(state.filter(|_| !observed).map(|state| *state));
                    if let Some(new_fact) = new_fact {
                        facts.add(new_fact);
                    }
                    if let Some(fault) = tolerated_fault {
                        tolerated.push(Tolerated {
                            policy: link.name.clone(),
                            reason: Reason::Fault(*fault),
                        });
                    }
                    match verdict {
                        Verdict::Allow => None,
                        Verdict::Hold(hold) => {
                            held.push(Held {
                                policy: link.name.clone(),
                                lenient,
                                hold,
                            });
                            None
                        }
                        Verdict::Deny(denial) => Some(Reason::Denial(denial)),
                    }
                }
                Err(fault) => Some(Reason::Fault(fault)),
            };
            let Some(reason) = stop else { continue };
            let policy = link.name.clone();
            let outcome = match reason {
                Reason::Denial(denial) if !observed => Outcome::Denied { policy, denial },
                Reason::Fault(fault) if !lenient => Outcome::Faulted { policy, fault },
                reason => {
                    tolerated.push(Tolerated { policy, reason });
                    continue;
                }
            };
            if continues_after_limits && outcome.is_undescribed() {
                continue;
            }
            if continues_after_limits && outcome.is_limit() {
                reached.get_or_insert(outcome);
                continue;
            }
            // Later policies that were evaluated together with this one hold reservations that are not needed.
            for (link, decided) in self.links[index + 1..].iter().zip(already_decided) {
                if let Ok(Decision {
                    verdict: Verdict::Hold(hold),
                    ..
                }) = decided
                {
                    held.push(Held {
                        policy: link.name.clone(),
                        lenient: true,
                        hold,
                    });
                }
            }
            tolerated.extend(Permit::new(held, charges).not_issued().await);
            return Evaluation {
                outcome: reached.unwrap_or(outcome),
                facts,
                limits,
                storage,
                tolerated,
            };
        }

        Evaluation {
            outcome: reached.unwrap_or_else(|| Outcome::Allowed(Permit::new(held, charges))),
            facts,
            limits,
            storage,
            tolerated,
        }
    }
}

/// How many links after the first are evaluated together with it: those that directly follow it, count in the same
/// store, do not depend on the request, and can give back what they count.
fn followers(links: &[Link]) -> usize {
    let Some((first, others)) = links.split_first() else {
        return 0;
    };
    let Some(counter_store) = &first.counter_store else {
        return 0;
    };
    let follows = |link: &&Link| {
        let also = link.counter_store.as_ref();
        link.when.is_none()
            && also.is_some_and(|also| also.can_release && also.store == counter_store.store)
    };
    others.iter().take_while(follows).count()
}
