//! The retry budget: an outage must not multiply the load.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use policies::Clock;

/// How many retries a new or idle gate has.
const RESERVE: u32 = 10;

/// How many retries can accumulate.
const MOST: u32 = 100;

/// How long one retry of the reserve takes to return.
const TRICKLE: Duration = Duration::from_secs(1);

/// One budget per service: each request earns one retry, so retries at most double the load.
pub(crate) struct RetryBudget {
    clock: Arc<dyn Clock>,
    left: Mutex<(u32, Duration)>,
}

impl RetryBudget {
    #[must_use]
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let now = clock.elapsed();
        Self {
            clock,
            left: Mutex::new((RESERVE, now)),
        }
    }

    pub(crate) fn deposit(&self) {
        let mut balance = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        balance.0 = (balance.0 + 1).min(MOST);
    }

    /// Takes a retry, if one is left.
    pub(crate) fn withdraw(&self) -> bool {
        let now = self.clock.elapsed();
        let mut balance = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = *balance;
        let came_back = now.saturating_sub(since).as_secs() / TRICKLE.as_secs();
        let came_back = u32::try_from(came_back).unwrap_or(u32::MAX);
        // The trickle fills only the reserve.
        let left = left.max(left.saturating_add(came_back).min(RESERVE));
        let since = if came_back > 0 { now } else { since };
        *balance = (left.saturating_sub(1), since);
        left > 0
    }
}
