//! What policies reserve for a request until it is known whether a token was issued: the hold of one policy, and the
//! permit with the holds of the whole chain.

use futures_util::future;

use crate::{BoxFuture, Denial, Fault, PolicyName};

/// A reservation of a policy for one request, for example a unit of a quota.
///
/// Dropping a hold neither commits nor releases it: the unit stays counted. So a crash may lose units that were
/// reserved, but never adds any.
pub trait Hold {
    /// Waits until the count is durable. The token may be sent only after this returns `Ok`.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if it is unknown whether the count is durable. The hold must then be
    /// released.
    fn commit(&mut self) -> BoxFuture<'_, ()>;

    /// Releases the reservation, because no token was issued.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if the release failed. The unit then stays counted.
    fn release(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// A denial or a fault that did not stop the request, because the config tolerates it.
#[derive(Debug)]
pub struct Tolerated {
    /// The name of the policy.
    pub policy: PolicyName,
    /// The denial or the fault.
    pub reason: Reason,
}

/// Why a policy would have stopped a request.
#[derive(Debug)]
pub enum Reason {
    /// The policy denied, with `mode = "observe"`.
    Denial(Denial),
    /// The policy could not decide, with `on_failure = "allow"` or `mode = "observe"`.
    Fault(Fault),
}

pub(crate) struct Held {
    pub(crate) policy: PolicyName,
    /// Whether faults of this policy do not stop the request: `mode = "observe"` or `on_failure = "allow"`.
    pub(crate) lenient: bool,
    pub(crate) hold: Box<dyn Hold>,
}

/// Permission to create a token, because the whole chain allowed the request. It must be settled, with
/// [`issued`](Self::issued) or [`not_issued`](Self::not_issued).
#[must_use = "a permit must be settled"]
pub struct Permit {
    held: Vec<Held>,
}

impl Permit {
    pub(crate) fn new(held: Vec<Held>) -> Self {
        Self { held }
    }

    /// Commits all holds, because a token was created. Returns the faults that the config tolerates.
    ///
    /// # Errors
    ///
    /// Returns the first policy that failed and its fault. All holds are then released, and the token must not be sent.
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

    /// Releases all holds in reverse order, because no token was created. Returns the faults of holds that could not be
    /// released. They stay counted.
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
