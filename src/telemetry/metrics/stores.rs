//! What stores on other machines do, counted without a look-up.

use std::{sync::Arc, time::Duration};

use policies::Clock;
use prometheus_client::metrics::{counter::Counter, histogram::Histogram};

/// What a store on another machine is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// To count an attempt.
    Limit,
    /// To count a unit of a quota.
    Reserve,
    /// To give units back.
    GiveBack,
    /// To say what is counted.
    Look,
    /// To say what time it is.
    Time,
    /// To read or write a session.
    Session,
}

impl Operation {
    pub(super) const ALL: [Self; 6] = [
        Self::Limit,
        Self::Reserve,
        Self::GiveBack,
        Self::Look,
        Self::Time,
        Self::Session,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Reserve => "reserve",
            Self::GiveBack => "give_back",
            Self::Look => "look",
            Self::Time => "time",
            Self::Session => "session",
        }
    }
}

/// Counts what a store on another machine does, without looking its counters up each time.
#[derive(Clone)]
pub struct StoreMetrics {
    pub(super) clock: Arc<dyn Clock>,
    /// For each of [`Operation::ALL`]: how many went well, and how many did not.
    pub(super) operations: [(Counter, Counter); Operation::ALL.len()],
    pub(super) seconds: Histogram,
}

/// An operation that is under way.
#[must_use = "it is counted when it ends"]
pub struct StoreOperation<'a> {
    of: &'a StoreMetrics,
    operation: Operation,
    began: Duration,
}

impl StoreMetrics {
    /// Notes that an operation begins.
    pub fn begin(&self, operation: Operation) -> StoreOperation<'_> {
        StoreOperation {
            of: self,
            operation,
            began: self.clock.elapsed(),
        }
    }
}

impl StoreOperation<'_> {
    /// Notes that it is over.
    pub fn end(self, is_ok: bool) {
        let took = self.of.clock.elapsed().saturating_sub(self.began);
        // The order of the variants is that of `ALL`.
        let (ok, fault) = &self.of.operations[self.operation as usize];
        if is_ok { ok } else { fault }.inc();
        self.of.seconds.observe(took.as_secs_f64());
    }
}

pub(super) fn store_seconds() -> Histogram {
    Histogram::new([
        1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    ])
}
