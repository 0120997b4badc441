//! The circuit breaker: while Imgwire is down, requests fail at once.

use std::{
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::error::ImgwireError;

/// Shared by all workers of a gate.
pub struct Breaker {
    failures: NonZeroU32,
    pause: Duration,
    circuit: Mutex<Circuit>,
}

/// Whether requests go through, with the number that the metric has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests go through.
    Closed = 0,
    /// Requests fail at once, and a trial is in progress.
    HalfOpen = 1,
    /// Requests fail at once.
    Open = 2,
}

struct Circuit {
    state: BreakerState,
    /// In a row.
    failed: u32,
    /// How often it has opened or closed. A result counts only if this has not changed since the attempt began.
    changes: u32,
    trials: u32,
}

/// Permission for one attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass(u32);

impl Breaker {
    /// Opens after this many failures in a row, and then tries Imgwire every `probe`.
    #[must_use]
    pub fn new(failures: NonZeroU32, probe: Duration) -> Self {
        Self {
            failures,
            pause: probe,
            circuit: Mutex::new(Circuit {
                state: BreakerState::Closed,
                failed: 0,
                changes: 0,
                trials: 0,
            }),
        }
    }

    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.lock().state
    }

    /// How long to wait before the next trial.
    pub(super) fn pause(&self) -> Duration {
        // Jitter, so that gates do not try at the same time.
        self.pause.mul_f64(fastrand::f64().mul_add(0.2, 0.8))
    }

    /// `None` unless the circuit is closed.
    pub(super) fn pass(&self) -> Option<Pass> {
        let circuit = self.lock();
        (circuit.state == BreakerState::Closed).then_some(Pass(circuit.changes))
    }

    /// Records the result of an attempt. Returns whether it opened the circuit, so that trials must begin.
    #[must_use]
    pub(super) fn note(&self, Pass(changes): Pass, error: Option<&ImgwireError>) -> bool {
        let mut circuit = self.lock();
        if circuit.changes != changes {
            return false;
        }
        match error {
            Some(error) if error.is_outage() => circuit.failed += 1,
            // Imgwire answers.
            _ => circuit.failed = 0,
        }
        let opens = circuit.failed >= self.failures.get();
        if opens {
            circuit.state = BreakerState::Open;
            circuit.changes += 1;
        }
        opens
    }

    /// Records that a trial begins, unless none is needed any more.
    pub(super) fn begin_trial(&self) -> bool {
        let mut circuit = self.lock();
        let is_open = circuit.state != BreakerState::Closed;
        if is_open {
            circuit.state = BreakerState::HalfOpen;
            circuit.trials += 1;
        }
        is_open
    }

    /// Records the result of a trial. The circuit closes if Imgwire answers, even with a refusal: requests and the log
    /// then show that answer.
    pub(super) fn end_trial(&self, error: Option<&ImgwireError>) {
        let mut circuit = self.lock();
        circuit.trials -= 1;
        if circuit.state == BreakerState::Closed {
            // A later trial finished first and closed the circuit.
        } else if !error.is_some_and(ImgwireError::is_outage) {
            circuit.state = BreakerState::Closed;
            circuit.failed = 0;
            circuit.changes += 1;
        } else if circuit.trials == 0 {
            circuit.state = BreakerState::Open;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
