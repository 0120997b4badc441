//! How many requests run, and how many may.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

tokio::task_local! {
    /// Where the running request holds a place.
    static HELD: InFlight;
}

/// Counts the requests of the public listener.
#[derive(Clone)]
pub struct InFlight(Arc<Counts>);

struct Counts {
    /// Requests without a response, with or without a place.
    present: AtomicU32,
    running: AtomicU32,
    max: u32,
    draining: AtomicBool,
}

/// A request without a response, until it is dropped.
#[must_use]
pub struct Present(InFlight);

/// A request with a place, until it is dropped.
#[must_use]
pub struct Running(InFlight);

impl InFlight {
    #[must_use]
    pub fn new(max: u32) -> Self {
        Self(Arc::new(Counts {
            present: AtomicU32::new(0),
            running: AtomicU32::new(0),
            max,
            draining: AtomicBool::new(false),
        }))
    }

    /// Counts a request whose head has arrived.
    pub fn arrive(&self) -> Present {
        self.0.present.fetch_add(1, Ordering::AcqRel);
        Present(self.clone())
    }

    /// Gives a place to a request that has arrived completely, unless all are taken.
    pub fn enter(&self) -> Option<Running> {
        let running = Running(self.clone());
        // Counted first and given back by the drop, so that no two see the last place free.
        let before = self.0.running.fetch_add(1, Ordering::AcqRel);
        (before < self.0.max).then_some(running)
    }

    #[must_use]
    pub fn running(&self) -> u32 {
        self.0.running.load(Ordering::Acquire)
    }

    /// How many requests a stopping gate must wait for. A request may run on after its client disconnects.
    #[must_use]
    pub fn unfinished(&self) -> u32 {
        self.0.present.load(Ordering::Acquire).max(self.running())
    }

    /// From now on, connections close after their response.
    pub fn start_draining(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }
}

/// Does `work` for a request that holds a place, which it may leave by [`wait_without_place`]. Not an `async fn`, which
/// would store `work` twice.
pub(crate) fn with_place<F: Future>(
    in_flight: InFlight,
    work: F,
) -> impl Future<Output = F::Output> {
    HELD.scope(in_flight, work)
}

/// Releases the running request's place while it waits, and takes it again afterwards, even if all are taken by then.
/// So a wait that many requests share does not block those that can proceed.
pub(crate) async fn wait_without_place<F: Future>(waiting: F) -> F::Output {
    /// The place is free until this is dropped.
    struct Away(InFlight);

    impl Drop for Away {
        fn drop(&mut self) {
            self.0.0.running.fetch_add(1, Ordering::AcqRel);
        }
    }

    let _away = HELD.try_with(|in_flight| {
        in_flight.0.running.fetch_sub(1, Ordering::AcqRel);
        Away(in_flight.clone())
    });
    waiting.await
}

impl Running {
    pub(crate) fn in_flight(&self) -> InFlight {
        self.0.clone()
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.0.present.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}
