//! The circuit breaker: while Imgwire is down nobody waits for it.

use std::{
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::ImgwireError;

/// One breaker a gate, for all its workers.
pub struct Breaker {
    failures: NonZeroU32,
    pause: Duration,
    circuit: Mutex<Circuit>,
}

/// Whether requests go through, with the number that the metric has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// They do.
    Closed = 0,
    /// They fail at once, and whether Imgwire is back is being tried.
    HalfOpen = 1,
    /// They fail at once.
    Open = 2,
}

struct Circuit {
    state: BreakerState,
    /// How many attempts have failed in a row.
    failed: u32,
    /// How often it has opened or closed: what an attempt came to counts if nothing has changed since it began.
    changes: u32,
    trials: u32,
}

/// An attempt that goes through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass(u32);

impl Breaker {
    /// Opens after so many failures in a row. Then Imgwire is tried every `probe`.
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

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.lock().state
    }

    /// How long to wait before the next trial.
    pub(super) fn pause(&self) -> Duration {
        // Not all gates at once.
        self.pause.mul_f64(fastrand::f64().mul_add(0.2, 0.8))
    }

    /// Lets an attempt through while the circuit is closed.
    pub(super) fn pass(&self) -> Option<Pass> {
        let circuit = self.lock();
        (circuit.state == BreakerState::Closed).then_some(Pass(circuit.changes))
    }

    /// Notes what an attempt came to. Returns whether that opened the circuit: then it is to be tried.
    #[must_use]
    pub(super) fn note(&self, Pass(changes): Pass, error: Option<&ImgwireError>) -> bool {
        let mut circuit = self.lock();
        if circuit.changes != changes {
            return false;
        }
        match error {
            Some(error) if error.is_outage() => circuit.failed += 1,
            // It answers.
            _ => circuit.failed = 0,
        }
        let opens = circuit.failed >= self.failures.get();
        if opens {
            circuit.state = BreakerState::Open;
            circuit.changes += 1;
        }
        opens
    }

    /// Notes that a trial begins, unless none is needed any more.
    pub(super) fn begin_trial(&self) -> bool {
        let mut circuit = self.lock();
        let is_open = circuit.state != BreakerState::Closed;
        if is_open {
            circuit.state = BreakerState::HalfOpen;
            circuit.trials += 1;
        }
        is_open
    }

    /// Notes what a trial came to. The circuit closes if Imgwire answers, even if it refuses: then requests get its
    /// answer, and the log has it.
    pub(super) fn end_trial(&self, error: Option<&ImgwireError>) {
        let mut circuit = self.lock();
        circuit.trials -= 1;
        if circuit.state == BreakerState::Closed {
            // An earlier trial was slower, and no worse.
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
