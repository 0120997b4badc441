//! How many requests run, and how many may.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

/// Counts the requests that run.
#[derive(Clone)]
pub struct InFlight(Arc<Counts>);

struct Counts {
    running: AtomicU32,
    /// How many have begun, all in all.
    begun: AtomicU32,
    max: u32,
    draining: AtomicBool,
}

/// One request that runs, until it is dropped.
#[must_use]
pub struct Running(InFlight);

impl InFlight {
    /// Lets `max` requests run at once.
    #[must_use]
    pub fn new(max: u32) -> Self {
        Self(Arc::new(Counts {
            running: AtomicU32::new(0),
            begun: AtomicU32::new(0),
            max,
            draining: AtomicBool::new(false),
        }))
    }

    /// Counts one more, unless there are too many.
    pub fn enter(&self) -> Option<Running> {
        let running = Running(self.clone());
        // Counted first and given back by the drop, so that no two see the last place free.
        let before = self.0.running.fetch_add(1, Ordering::AcqRel);
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        (before < self.0.max).then_some(running)
    }

    /// How many run now.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.running.load(Ordering::Acquire)
    }

    /// A number that changes whenever a request begins.
    #[must_use]
    pub fn begun(&self) -> u32 {
        self.0.begun.load(Ordering::Relaxed)
    }

    /// From here on connections end with their answers.
    pub fn start_draining(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// Whether the gate is about to end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}
