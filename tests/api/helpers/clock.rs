//! A clock that tests can move, and polling with a deadline.

use std::{sync::Mutex, time::Duration};

use jiff::{SignedDuration, Timestamp};
use policies::{Clock, SystemClock};

/// The machine's clock, which tests can move.
#[derive(Default)]
pub(crate) struct TestClock {
    system: SystemClock,
    jump: Mutex<(SignedDuration, Duration)>,
}

impl TestClock {
    /// Moves the time of day and the elapsed time.
    pub(crate) fn advance(&self, by: Duration) {
        let mut jump = self.jump.lock().unwrap();
        jump.0 += SignedDuration::try_from(by).unwrap();
        jump.1 += by;
    }

    /// Sets the time of day.
    pub(crate) fn set(&self, to: Timestamp) {
        self.jump.lock().unwrap().0 = to.duration_since(self.system.now());
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        self.system
            .now()
            .checked_add(self.jump.lock().unwrap().0)
            .unwrap()
    }

    fn elapsed(&self) -> Duration {
        self.system.elapsed() + self.jump.lock().unwrap().1
    }
}

/// Polls until `ready` returns true, for at most ten seconds.
pub(crate) async fn eventually(what: &str, ready: impl AsyncFnMut() -> bool) {
    within(Duration::from_secs(10), what, ready).await;
}

/// Polls until `ready` returns true, for at most `limit`.
pub(crate) async fn within(limit: Duration, what: &str, mut ready: impl AsyncFnMut() -> bool) {
    let ended = async {
        while !ready().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let ended = tokio::time::timeout(limit, ended).await;
    assert!(ended.is_ok(), "{what} did not happen within {limit:?}");
}
