//! The policies of a route, in order.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::future::join_all;

use crate::{
    Clock, Condition, Decision, Denial, Evaluating, EvaluationError, Fact, Facts, Fault,
    LimitState, Mode, OnFailure, Pass, Permit, Policy, PolicyName, StoreName, UploadRequest,
    Verdict, engine::hold::Held,
};

/// One policy of a chain, with how its answers are taken.
#[derive(Clone)]
pub struct Link {
    /// The policy's name in the config.
    pub name: PolicyName,
    /// Its kind, for example `rate_limit`.
    pub kind: &'static str,
    /// Whether its denials count.
    pub mode: Mode,
    /// Whether its faults stop the request.
    pub on_failure: OnFailure,
    /// When it is asked: unless this is false, or always, if nothing is said.
    pub when: Option<Condition>,
    /// What it finds out for the policies after it.
    pub provides: Option<Fact>,
    /// Where it counts, if that is outside of this process.
    pub counting: Option<Counting>,
    /// The policy itself, shared by all chains that name it.
    pub policy: Arc<dyn Policy>,
}

/// Where a policy counts: the chain asks neighbours that share a store in one go, so that they cost one round trip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counting {
    /// The store.
    pub store: StoreName,
    /// Whether what it counts can be given back: only then may it be asked before the policies in front of it have
    /// decided.
    pub gives_back: bool,
}

/// The policies of a route, asked in the written order.
pub struct Chain {
    links: Vec<Link>,
    /// For each link, how many after it are asked together with it.
    followers: Vec<usize>,
}

/// What the chain said, and what it found out on the way.
pub struct Evaluation {
    /// Allowed, denied or faulted.
    pub outcome: Outcome,
    /// What was found out about the request.
    pub facts: Facts,
    /// The limits that were asked and are enforced, in the chain's order.
    pub limits: Vec<LimitState>,
    /// Denials and faults that did not stop the request.
    pub overlooked: Vec<Overlooked>,
}

/// The end of a chain.
pub enum Outcome {
    /// Every policy agreed.
    Allowed(Permit),
    /// A policy refused; what was held before it is released.
    Denied {
        /// Which policy.
        policy: PolicyName,
        /// Why.
        denial: Denial,
    },
    /// A policy could not tell; what was held before it is released.
    Faulted {
        /// Which policy.
        policy: PolicyName,
        /// Why not.
        fault: Fault,
    },
}

/// What each policy said, for someone who asks why.
pub struct Trace<'a> {
    clock: &'a dyn Clock,
    steps: Vec<Step>,
}

/// What one policy said.
#[derive(Debug)]
pub struct Step {
    /// The policy.
    pub policy: PolicyName,
    /// Its kind.
    pub kind: &'static str,
    /// What it said.
    pub said: Said,
    /// Why its condition is neither true nor false, where it is not: it was asked all the same.
    pub no_value: Option<EvaluationError>,
    /// Whether the request would have ended there, had the config not said otherwise.
    pub overlooked: bool,
    /// When it was asked, by the clock's [`Clock::elapsed`].
    pub began: Duration,
    /// How long it took; those that are asked together take as long as all of them.
    pub took: Duration,
}

/// What a policy said, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Yes.
    Allow,
    /// It was not asked: its condition is false.
    Skip,
    /// No, and why.
    Deny(String),
    /// It cannot tell, and why not.
    Fault(String),
}

impl<'a> Trace<'a> {
    /// Begins a trace, timed by `clock`.
    #[must_use]
    pub fn new(clock: &'a dyn Clock) -> Self {
        Self {
            clock,
            steps: Vec::new(),
        }
    }

    /// What the policies said, in their order, up to the one that ended the request.
    #[must_use]
    pub fn into_steps(self) -> Vec<Step> {
        self.steps
    }
}

/// Something that would have stopped the request, had the config not said otherwise.
#[derive(Debug)]
pub struct Overlooked {
    /// The policy that said it.
    pub policy: PolicyName,
    /// What it said.
    pub reason: Reason,
}

/// Why a policy would have stopped a request.
#[derive(Debug)]
pub enum Reason {
    /// It denies, in `mode = "observe"`.
    Denial(Denial),
    /// It cannot tell, and `on_failure = "allow"` or `mode = "observe"`.
    Fault(Fault),
}

impl Trace<'_> {
    fn note(
        &mut self,
        link: &Link,
        said: Said,
        no_value: Option<EvaluationError>,
        overlooked: bool,
        began: Duration,
    ) {
        self.steps.push(Step {
            policy: link.name.clone(),
            kind: link.kind,
            said,
            no_value,
            overlooked,
            began,
            took: self.clock.elapsed().saturating_sub(began),
        });
    }
}

impl Said {
    fn of(decided: &Result<Decision, Fault>) -> Self {
        match decided {
            Ok(Decision {
                verdict: Verdict::Allow | Verdict::Hold(_),
                ..
            }) => Self::Allow,
            Ok(Decision {
                verdict: Verdict::Deny(denial),
                ..
            }) => Self::Deny(denial.to_string()),
            Err(fault) => Self::Fault(fault.to_string()),
        }
    }
}

impl Chain {
    /// Takes the policies in their order.
    #[must_use]
    pub fn new(links: Vec<Link>) -> Self {
        let followers = (0..links.len())
            .map(|index| followers(&links[index..]))
            .collect();
        Self { links, followers }
    }

    /// The policies, in order.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Asks each policy in turn and stops at the first that denies or faults, releasing in reverse what
    /// those before it held.
    pub async fn evaluate(&self, request: &UploadRequest, pass: Pass) -> Evaluation {
        self.evaluate_and_tell(request, pass, None).await
    }

    /// The same, and says of each policy what it said.
    pub async fn evaluate_and_trace(
        &self,
        request: &UploadRequest,
        pass: Pass,
        trace: &mut Trace<'_>,
    ) -> Evaluation {
        self.evaluate_and_tell(request, pass, Some(trace)).await
    }

    /// The same, consuming nothing, and says of each policy what it said.
    pub async fn explain(&self, request: &UploadRequest, trace: &mut Trace<'_>) -> Evaluation {
        self.evaluate_and_tell(request, Pass::Preview, Some(trace))
            .await
    }

    async fn evaluate_and_tell(
        &self,
        request: &UploadRequest,
        pass: Pass,
        mut trace: Option<&mut Trace<'_>>,
    ) -> Evaluation {
        let mut facts = Facts::default();
        let mut limits = Vec::with_capacity(self.links.len());
        let mut overlooked = Vec::new();
        let mut held = Vec::new();
        // What policies said that were asked together with one before them.
        let mut said_already = VecDeque::new();
        let mut began_together = None;

        for (index, link) in self.links.iter().enumerate() {
            let observed = link.mode == Mode::Observe;
            let lenient = observed || link.on_failure == OnFailure::Allow;
            let began = match began_together {
                Some(began) if !said_already.is_empty() => Some(began),
                _ => trace.as_ref().map(|trace| trace.clock.elapsed()),
            };
            let condition = link.when.as_ref();
            let condition = condition.map(|when| when.evaluate(request, &facts));
            if condition == Some(Ok(false)) {
                if let (Some(trace), Some(began)) = (trace.as_deref_mut(), began) {
                    trace.note(link, Said::Skip, None, false, began);
                }
                continue;
            }
            let evaluating = Evaluating {
                request,
                facts: &facts,
                pass,
            };
            let decided = if let Some(decided) = said_already.pop_front() {
                decided
            } else if self.followers[index] == 0 || pass == Pass::Preview {
                link.policy.decide(evaluating).await
            } else {
                began_together = began;
                let together = &self.links[index..=index + self.followers[index]];
                let asked = together.iter().map(|link| link.policy.decide(evaluating));
                let mut said = join_all(asked).await.into_iter();
                let first = said.next().expect("the link itself was asked");
                said_already.extend(said);
                first
            };
            if let (Some(trace), Some(began)) = (trace.as_deref_mut(), began) {
                let said = Said::of(&decided);
                let overlooked = match said {
                    Said::Deny(_) => observed,
                    Said::Fault(_) => lenient,
                    Said::Allow | Said::Skip => false,
                };
                let no_value = condition.and_then(Result::err);
                trace.note(link, said, no_value, overlooked, began);
            }
            let stop = match decided {
                Ok(Decision {
                    verdict,
                    limit,
                    finding,
                    despite,
                }) => {
                    if let Some(limit) = limit.filter(|_| !observed) {
                        limits.push(limit);
                    }
                    if let Some(finding) = finding {
                        facts.add(finding);
                    }
                    if let Some(fault) = despite {
                        overlooked.push(Overlooked {
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
                    overlooked.push(Overlooked { policy, reason });
                    continue;
                }
            };
            // Those behind that were asked already hold what nobody will use.
            for (link, decided) in self.links[index + 1..].iter().zip(said_already) {
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
            overlooked.extend(Permit::new(held).not_issued().await);
            return Evaluation {
                outcome,
                facts,
                limits,
                overlooked,
            };
        }

        Evaluation {
            outcome: Outcome::Allowed(Permit::new(held)),
            facts,
            limits,
            overlooked,
        }
    }
}

/// How many links after the first of `links` are asked together with it: those that count in the same store right
/// after it, whatever the request is, and can give back what they count.
fn followers(links: &[Link]) -> usize {
    let Some((first, others)) = links.split_first() else {
        return 0;
    };
    let Some(counting) = &first.counting else {
        return 0;
    };
    let follows = |link: &&Link| {
        let also = link.counting.as_ref();
        link.when.is_none()
            && also.is_some_and(|also| also.gives_back && also.store == counting.store)
    };
    others.iter().take_while(follows).count()
}
