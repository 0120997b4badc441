//! What is held while Imgwire is asked, and how it is settled.

use futures_util::future::{self, LocalBoxFuture};

use crate::{
    Fault, PolicyName,
    engine::chain::{Overlooked, Reason},
};

/// The settling of a hold, in the making.
pub type Settling<'a> = LocalBoxFuture<'a, Result<(), Fault>>;

/// Something that a policy holds for a request, for example a unit of a quota.
///
/// Dropping a hold neither commits nor releases: what was counted stays counted. So a crash may lose the
/// units in flight, and never gains one.
pub trait Hold {
    /// Waits until what is held would survive a power cut. A token may leave only after this is `Ok`.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] when it is not certain that it was counted; the hold is to be released then.
    fn commit(&mut self) -> Settling<'_>;

    /// Gives back what is held: no token was issued.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] when it could not be given back; it stays counted.
    fn release(self: Box<Self>) -> Settling<'static>;
}

/// A hold and the policy that has it.
pub(crate) struct Held {
    pub(crate) policy: PolicyName,
    /// Whether a fault of this policy is overlooked: `mode = "observe"` or `on_failure = "allow"`.
    pub(crate) lenient: bool,
    pub(crate) hold: Box<dyn Hold>,
}

/// The whole chain allowed: a token may be created. To be settled by [`Permit::issued`] or
/// [`Permit::not_issued`].
#[must_use = "what the chain holds is to be settled"]
pub struct Permit {
    held: Vec<Held>,
}

impl Permit {
    pub(crate) fn new(held: Vec<Held>) -> Self {
        Self { held }
    }

    /// A token was created: makes everything that is held final. Faults of lenient policies are returned.
    ///
    /// # Errors
    ///
    /// The first policy that could not; everything has been released then, and the token must not leave.
    pub async fn issued(self) -> Result<Vec<Overlooked>, (PolicyName, Fault)> {
        let mut held = self.held;
        // All at once: what one store makes durable for several of them is made durable once.
        let committing = held.iter_mut().map(|held| held.hold.commit());
        let committed = future::join_all(committing).await;
        let mut overlooked = Vec::new();
        for (index, result) in committed.into_iter().enumerate() {
            let Err(fault) = result else { continue };
            let policy = held[index].policy.clone();
            if !held[index].lenient {
                Self { held }.not_issued().await;
                return Err((policy, fault));
            }
            let reason = Reason::Fault(fault);
            overlooked.push(Overlooked { policy, reason });
        }
        Ok(overlooked)
    }

    /// No token was created: gives everything back, the last held first. Returns what could not be given
    /// back and stays counted.
    pub async fn not_issued(self) -> Vec<Overlooked> {
        let mut overlooked = Vec::new();
        for Held { policy, hold, .. } in self.held.into_iter().rev() {
            if let Err(fault) = hold.release().await {
                overlooked.push(Overlooked {
                    policy,
                    reason: Reason::Fault(fault),
                });
            }
        }
        overlooked
    }
}
