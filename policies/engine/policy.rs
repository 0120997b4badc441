//! The trait of policies, their input and their results, and the permit that settles what they reserved.

use std::{any::Any, time::Duration};

use futures_util::future::{self, ready};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    BoxFuture, Counter, Denial, Facts, Fault, NewFact, PolicyName, StorageCharge, StorageState,
    StorageUsed, SubjectId, UploadRequest, Window, WorkspaceId,
};

/// A policy decides on requests. All workers, and all routes that name a policy, share it.
pub trait Policy: Any + Send + Sync {
    /// Decides on a request.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if the policy cannot decide. A denial is [`Verdict::Deny`].
    fn decide<'a>(&'a self, input: PolicyInput<'a>) -> BoxFuture<'a, Decision>;

    /// Returns the persistent counters of the policy, if it has any.
    fn counters(&self) -> Option<&dyn PersistentCounters> {
        None
    }

    /// Returns the counters of storage of the policy, if it has any.
    fn storage(&self) -> Option<&dyn StorageCounters> {
        None
    }

    /// Returns the counter of storage under which the policy counts the images of this owner. `None` if the policy counts
    /// no storage.
    fn storage_counter(
        &self,
        subject: &SubjectId,
        workspace: Option<&WorkspaceId>,
    ) -> Option<Counter> {
        let counters = self.storage()?;
        Some(counters.counter(subject, workspace))
    }

    /// Tries the service or the database that the policy asks, for `doctor`, and says how it responded. `None` if the
    /// policy asks none: its store is tried as such. It must consume nothing.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if the policy could not decide on a request.
    fn try_out(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(ready(Ok(None)))
    }
}

/// The persistent counters of a policy, for the management API.
pub trait PersistentCounters {
    /// Returns the number of units that are counted under `key`, and their window.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if the store fails.
    fn used<'a>(&'a self, key: &str) -> BoxFuture<'a, (u64, Window)>;

    /// Releases all units that are counted under `key`.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if the store fails.
    fn give_back<'a>(&'a self, key: &str) -> BoxFuture<'a, ()>;
}

/// The counters of storage of a policy. Only uploads and deletions change them.
pub trait StorageCounters {
    /// Returns the counter of the images of this owner.
    fn counter(&self, subject: &SubjectId, workspace: Option<&WorkspaceId>) -> Counter;

    /// Returns what is counted under `key`.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if the store fails.
    fn used<'a>(&'a self, key: &str) -> BoxFuture<'a, StorageUsed>;
}

/// The input of a policy for one request.
#[derive(Clone, Copy)]
pub struct PolicyInput<'a> {
    /// The request of the client.
    pub request: &'a UploadRequest,
    /// The facts that earlier policies established.
    pub facts: &'a Facts,
    /// Whether limits count the request.
    pub pass: Pass,
}

/// Whether an evaluation counts, or is a dry run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// The client requests a token or an upload. Limits count the request.
    Issue,
    /// The client repeats a request whose upload exists. Rate limits count it. Quotas do not, because they counted the
    /// first one.
    Repeat,
    /// The client repeats a request whose upload has no answer yet. Rate limits count it, and so do quotas, because the first
    /// request gave its unit back. Storage still holds the upload, so it does not check again whether that fits.
    Resume,
    /// A dry run, which counts and reserves nothing.
    Preview,
}

/// The result of a policy.
pub struct Decision {
    /// Whether the policy allows the request.
    pub verdict: Verdict,
    /// The state of the limit, for the `RateLimit` fields of the response.
    pub limit: Option<LimitState>,
    /// What the upload takes of the storage when it is recorded.
    pub charge: Option<Box<StorageCharge>>,
    /// The state of the storage. Only a preview has it.
    pub storage: Option<Box<StorageState>>,
    /// The fact that the policy established.
    pub new_fact: Option<NewFact>,
    /// A fault despite which the policy decided.
    pub tolerated_fault: Option<Box<Fault>>,
    /// What an operator should know about a request that the policy allows. Explanations show it.
    pub note: Option<String>,
}

impl From<Verdict> for Decision {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            limit: None,
            charge: None,
            storage: None,
            new_fact: None,
            tolerated_fault: None,
            note: None,
        }
    }
}

impl Decision {
    /// Adds the state of the limit.
    #[must_use]
    pub fn with_limit(self, limit: LimitState) -> Self {
        Self {
            limit: Some(limit),
            ..self
        }
    }

    /// Adds what the upload takes of the storage.
    #[must_use]
    pub fn with_charge(self, charge: StorageCharge) -> Self {
        Self {
            charge: Some(Box::new(charge)),
            ..self
        }
    }

    /// Adds the state of the storage.
    #[must_use]
    pub fn with_storage(self, state: StorageState) -> Self {
        Self {
            storage: Some(Box::new(state)),
            ..self
        }
    }

    /// Adds the fact that the policy established.
    #[must_use]
    pub fn with_fact(self, new_fact: NewFact) -> Self {
        Self {
            new_fact: Some(new_fact),
            ..self
        }
    }
}

/// The state of a limit after an attempt: one item of the `RateLimit` fields of draft-ietf-httpapi-ratelimit-headers.
///
/// A [`Pass::Preview`] attempts nothing. Its state is the one now, and the limit of a rate is its burst.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitState {
    /// The name of the policy.
    pub policy: PolicyName,
    /// The number of units per window (`q`).
    pub limit: u64,
    /// The length of the window (`w`).
    pub window: Duration,
    /// The number of units that are left (`r`).
    pub remaining: u64,
    /// The time until all units are available again (`t`).
    pub resets_in: Duration,
}

/// Whether a policy allows a request.
#[must_use]
pub enum Verdict {
    /// The chain continues with the next policy.
    Allow,
    /// The chain stops, and the request is denied.
    Deny(Denial),
    /// The chain continues. The reservation is settled when it is known whether a token was issued.
    Hold(Box<dyn Hold>),
}

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

/// Whether a policy's denials are enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Denials are enforced.
    #[default]
    Enforce,
    /// A denial is logged and counted, and the request continues (a dry run).
    Observe,
}

/// What happens if a policy cannot decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The request fails: it is neither allowed nor denied.
    #[default]
    Deny,
    /// The request continues as if the policy allowed it.
    Allow,
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
    charges: Vec<StorageCharge>,
}

impl Permit {
    pub(crate) fn new(held: Vec<Held>, charges: Vec<StorageCharge>) -> Self {
        Self { held, charges }
    }

    /// Returns what the upload takes of the storage. Whoever records the upload takes it, so a permit does not settle it.
    #[must_use]
    pub fn charges(&self) -> &[StorageCharge] {
        &self.charges
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
                Self::new(held, Vec::new()).not_issued().await;
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
