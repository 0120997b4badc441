//! The vocabulary of a policy: its input and its results.

use std::{any::Any, time::Duration};

use crate::{BoxFuture, Denial, Facts, Fault, Hold, NewFact, PolicyName, UploadRequest, Window};

/// One rule of a chain.
///
/// Every worker and every route that names it share it. Its futures stay on the worker that made them.
pub trait Policy: Any + Send + Sync {
    /// Decides on one request.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if the policy cannot decide. A denial is [`Verdict::Deny`].
    fn decide<'a>(&'a self, input: PolicyInput<'a>) -> BoxFuture<'a, Decision>;

    /// The counters of a policy that keeps persistent ones.
    fn counters(&self) -> Option<&dyn PersistentCounters> {
        None
    }
}

/// A policy's counters, for the operator.
pub trait PersistentCounters {
    /// How many units are counted under `key`, and in which window.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if the store fails.
    fn used<'a>(&'a self, key: &str) -> BoxFuture<'a, (u64, Window)>;

    /// Gives back all that is counted under `key`.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if the store fails.
    fn give_back<'a>(&'a self, key: &str) -> BoxFuture<'a, ()>;
}

/// The input of a policy for one request.
#[derive(Clone, Copy)]
pub struct PolicyInput<'a> {
    /// What the client asks for.
    pub request: &'a UploadRequest,
    /// What the earlier policies established.
    pub facts: &'a Facts,
    /// Whether to count.
    pub pass: Pass,
}

/// Whether an evaluation counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// A token is requested: limits count.
    Issue,
    /// A preview: consumes and reserves nothing.
    Preview,
}

/// A policy's result.
pub struct Decision {
    /// Allow, deny, or allow with a reservation.
    pub verdict: Verdict,
    /// The state of the limit that decided, for the `RateLimit` fields of the response.
    pub limit: Option<LimitState>,
    /// What it established.
    pub new_fact: Option<NewFact>,
    /// What failed, if the policy decided despite it.
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
    /// Adds the state of the limit that decided.
    #[must_use]
    pub fn with_limit(self, limit: LimitState) -> Self {
        Self {
            limit: Some(limit),
            ..self
        }
    }

    /// Adds what the policy established.
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
    /// The policy.
    pub policy: PolicyName,
    /// Units per window (`q`).
    pub limit: u64,
    /// The window's length (`w`).
    pub window: Duration,
    /// Units left (`r`).
    pub remaining: u64,
    /// Time until all units are available again (`t`).
    pub resets_in: Duration,
}

/// The verdict of a policy.
#[must_use]
pub enum Verdict {
    /// Continue.
    Allow,
    /// Stop here.
    Deny(Denial),
    /// Continue with a reservation, which must be settled once it is known whether a token was issued.
    Hold(Box<dyn Hold>),
}
