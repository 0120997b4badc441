//! The trait of policies, their input and their results.

use std::{any::Any, time::Duration};

use futures_util::future::ready;

use crate::{BoxFuture, Denial, Facts, Fault, Hold, NewFact, PolicyName, UploadRequest, Window};

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
    /// The client requests a token. Limits count the request.
    Issue,
    /// A dry run, which counts and reserves nothing.
    Preview,
}

/// The result of a policy.
pub struct Decision {
    /// Whether the policy allows the request.
    pub verdict: Verdict,
    /// The state of the limit, for the `RateLimit` fields of the response.
    pub limit: Option<LimitState>,
    /// The fact that the policy established.
    pub new_fact: Option<NewFact>,
    /// A fault despite which the policy decided.
    pub tolerated_fault: Option<Box<Fault>>,
}

impl From<Verdict> for Decision {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            limit: None,
            new_fact: None,
            tolerated_fault: None,
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
