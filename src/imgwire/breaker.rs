//! The circuit breaker: while Imgwire is down, requests fail at once.

use std::{num::NonZeroU32, time::Duration};

use parking_lot::Mutex;

use super::error::ImgwireError;

/// Shared by all workers of a gate.
pub struct Breaker {
    failure_threshold: NonZeroU32,
    probe_interval: Duration,
    circuit: Mutex<Circuit>,
}

/// The state, with its number in the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests go through.
    Closed = 0,
    /// Requests fail at once, and a probe is running.
    HalfOpen = 1,
    /// Requests fail at once.
    Open = 2,
}

struct Circuit {
    state: BreakerState,
    consecutive_failures: u32,
    /// Incremented when the circuit opens or closes. A result counts only if this has not changed since the attempt
    /// began.
    generation: u32,
    running_probes: u32,
}

/// Permission for one attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttemptPermit {
    generation: u32,
}

impl Breaker {
    /// Opens after `failures` consecutive failures, and then probes Imgwire every `probe`.
    #[must_use]
    pub fn new(failures: NonZeroU32, probe: Duration) -> Self {
        Self {
            failure_threshold: failures,
            probe_interval: probe,
            circuit: Mutex::new(Circuit {
                state: BreakerState::Closed,
                consecutive_failures: 0,
                generation: 0,
                running_probes: 0,
            }),
        }
    }

    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.circuit.lock().state
    }

    /// How long to wait between two probes.
    pub(super) fn probe_interval(&self) -> Duration {
        self.probe_interval
    }

    /// The time until the next probe, with jitter so that gates do not probe at the same time.
    pub(super) fn probe_delay(&self) -> Duration {
        self.probe_interval
            .mul_f64(fastrand::f64().mul_add(0.2, 0.8))
    }

    /// Returns `None` unless the circuit is closed.
    pub(super) fn permit(&self) -> Option<AttemptPermit> {
        let circuit = self.circuit.lock();
        let permit = AttemptPermit {
            generation: circuit.generation,
        };
        (circuit.state == BreakerState::Closed).then_some(permit)
    }

    /// Records the result of an attempt. Returns whether it opened the circuit, so that probes must start.
    #[must_use]
    pub(super) fn record(&self, permit: AttemptPermit, error: Option<&ImgwireError>) -> bool {
        let mut circuit = self.circuit.lock();
        if circuit.generation != permit.generation {
            return false;
        }
        if error.is_some_and(ImgwireError::is_outage) {
            circuit.consecutive_failures += 1;
        } else {
            circuit.consecutive_failures = 0;
        }
        let opens = circuit.consecutive_failures >= self.failure_threshold.get();
        if opens {
            circuit.state = BreakerState::Open;
            circuit.generation += 1;
        }
        opens
    }

    /// Records the start of a probe. Returns `false` if the circuit is closed, so that no probe is needed.
    #[must_use]
    pub(super) fn start_probe(&self) -> bool {
        let mut circuit = self.circuit.lock();
        let is_open = circuit.state != BreakerState::Closed;
        if is_open {
            circuit.state = BreakerState::HalfOpen;
            circuit.running_probes += 1;
        }
        is_open
    }

    /// Records the result of a probe. The circuit closes on any response of Imgwire, even a refusal, so that requests and
    /// the log show that response.
    pub(super) fn finish_probe(&self, error: Option<&ImgwireError>) {
        let mut circuit = self.circuit.lock();
        circuit.running_probes -= 1;
        if circuit.state == BreakerState::Closed {
            // A later probe finished first and closed the circuit.
        } else if !error.is_some_and(ImgwireError::is_outage) {
            circuit.state = BreakerState::Closed;
            circuit.consecutive_failures = 0;
            circuit.generation += 1;
        } else if circuit.running_probes == 0 {
            circuit.state = BreakerState::Open;
        }
    }
}
