//! The policies of a route, in order.

use std::sync::Arc;

use crate::{
    Condition, Decision, Denial, Evaluating, Facts, Fault, LimitState, Pass, Permit, Policy,
    PolicyName, UploadRequest, Verdict,
    hold::Held,
    settings::{Mode, OnFailure},
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
    /// Where it is asked at all: everywhere, if nothing is said.
    pub when: Option<Condition>,
    /// The policy itself, shared by all chains that name it.
    pub policy: Arc<dyn Policy>,
}

/// The policies of a route, asked in the written order.
pub struct Chain {
    links: Vec<Link>,
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

impl Chain {
    /// Takes the policies in their order.
    #[must_use]
    pub fn new(links: Vec<Link>) -> Self {
        Self { links }
    }

    /// The policies, in order.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Asks each policy in turn and stops at the first that denies or faults, releasing in reverse what
    /// those before it held.
    pub async fn evaluate(&self, request: &UploadRequest, pass: Pass) -> Evaluation {
        let mut facts = Facts::default();
        let mut limits = Vec::new();
        let mut overlooked = Vec::new();
        let mut held = Vec::new();

        for link in &self.links {
            let observed = link.mode == Mode::Observe;
            let lenient = observed || link.on_failure == OnFailure::Allow;
            let asked = match &link.when {
                Some(condition) => condition.holds(request, &facts),
                None => Ok(true),
            };
            let decided = match asked {
                Ok(true) => {
                    let evaluating = Evaluating {
                        request,
                        facts: &mut facts,
                        pass,
                    };
                    link.policy.decide(evaluating).await
                }
                Ok(false) => continue,
                Err(error) => Err(error.into()),
            };
            let stop = match decided {
                Ok(Decision { verdict, limit }) => {
                    if let Some(limit) = limit.filter(|_| !observed) {
                        limits.push(limit);
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
