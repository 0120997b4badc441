//! The reservations of a request that the whole chain allowed, and how they are settled.

use futures_util::future;

use crate::{Denial, Fault, Hold, PolicyName};

/// A result that would have stopped the request if the config did not say otherwise.
#[derive(Debug)]
pub struct Tolerated {
    /// The policy that said it.
    pub policy: PolicyName,
    /// What it said.
    pub reason: Reason,
}

/// Why a policy would have stopped a request.
#[derive(Debug)]
pub enum Reason {
    /// It denied, in `mode = "observe"`.
    Denial(Denial),
    /// It could not decide, with `on_failure = "allow"` or `mode = "observe"`.
    Fault(Fault),
}

pub(crate) struct Held {
    pub(crate) policy: PolicyName,
    /// Whether faults of this policy do not stop the request: `mode = "observe"` or `on_failure = "allow"`.
    pub(crate) lenient: bool,
    pub(crate) hold: Box<dyn Hold>,
}

/// The whole chain allowed the request: a token may be created. Settle it with [`Permit::issued`] or
/// [`Permit::not_issued`].
#[must_use = "what the chain holds is to be settled"]
pub struct Permit {
    held: Vec<Held>,
}

impl Permit {
    pub(crate) fn new(held: Vec<Held>) -> Self {
        Self { held }
    }

    /// A token was created: makes all holds final. Returns the faults of lenient policies.
    ///
    /// # Errors
    ///
    /// The first policy that failed. Everything has then been released, and the token must not be sent.
    pub async fn issued(self) -> Result<Vec<Tolerated>, (PolicyName, Fault)> {
        let mut held = self.held;
        // Concurrently, because a store may combine several commits into one.
        let committing = held.iter_mut().map(|held| held.hold.commit());
        let committed = future::join_all(committing).await;
        let mut tolerated = Vec::new();
        for (index, result) in committed.into_iter().enumerate() {
            let Err(fault) = result else { continue };
            let policy = held[index].policy.clone();
            if !held[index].lenient {
                Self { held }.not_issued().await;
                return Err((policy, fault));
            }
            let reason = Reason::Fault(fault);
            tolerated.push(Tolerated { policy, reason });
        }
        Ok(tolerated)
    }

    /// No token was created: gives everything back in reverse order. Returns what could not be given back and stays
    /// counted.
    pub async fn not_issued(self) -> Vec<Tolerated> {
        let mut tolerated = Vec::new();
        for Held { policy, hold, .. } in self.held.into_iter().rev() {
            if let Err(fault) = hold.release().await {
                tolerated.push(Tolerated {
                    policy,
                    reason: Reason::Fault(fault),
                });
            }
        }
        tolerated
    }
}
