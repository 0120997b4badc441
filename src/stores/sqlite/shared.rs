//! State that requests and the writer share, and how they wake each other.

use std::{
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use policies::{Clock, Counter};

use super::{
    commit::Commit,
    ledger::{Batch, Change, Changed, Ledger, Load, Loading, Slot, Writer},
};
use crate::stores::health::Health;

/// How long the writer gathers changes before it commits. A commit costs the same for one count as for many, and
/// Imgwire takes longer than this anyway. The writer commits earlier if the commit [is due](Commit::is_due).
const GATHERING: Duration = Duration::from_millis(2);

/// How long to wait before a failed disk is probed.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Shared {
    clock: Arc<dyn Clock>,
    pub(super) health: Health,
    ledger: Mutex<Ledger>,
    work: Condvar,
}

pub(super) struct Work {
    pub(super) loads: Vec<Load>,
    pub(super) batch: Option<Batch>,
}

impl Shared {
    pub(super) fn new(health: Health, clock: Arc<dyn Clock>) -> Self {
        Self {
            health,
            clock,
            ledger: Mutex::new(Ledger::new()),
            work: Condvar::new(),
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Every change leaves the ledger consistent, so a panic elsewhere does no harm.
    pub(super) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Limits an operation in time. If the writer has finished nothing meanwhile, the disk hangs, and requests fail at
    /// once until it works again.
    pub(super) async fn in_time<T>(&self, operation: impl Future<Output = T>) -> Result<T, String> {
        let before = self.health.answers();
        let result = tokio::time::timeout(self.health.timeout(), operation).await;
        result.map_err(|_| {
            let late = "the disk did not answer in time";
            if self.health.answers() == before {
                self.health.goes_down(&late);
                let _ledger = self.lock();
                self.work.notify_one();
            }
            late.to_owned()
        })
    }

    /// Makes the writer check whether `commit` is due, if it is gathering for it.
    pub(super) fn hasten(&self, commit: &Arc<Commit>) {
        let mut ledger = self.lock();
        if Arc::ptr_eq(&ledger.next, commit) && ledger.begins_to_work() {
            self.work.notify_one();
        }
    }

    /// Wakes the writer for a change if it waits for one.
    pub(super) fn announce(&self, change: Change) -> Arc<Commit> {
        if change.wakes_writer {
            self.work.notify_one();
        }
        change.commit
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
    }

    /// Waits for work, and takes it; `None` if there is none left and the store is closed. Reads happen at once; writes
    /// are gathered for some time. A failed disk is left alone for [`PAUSE`]; then the work may only be a probe. After
    /// `patience` the work may be empty.
    pub(super) fn next_work(&self, patience: Duration) -> Option<Work> {
        let mut ledger = self.lock();
        let mut is_due = false;
        let mut waits = true;
        if !self.health.is_up() {
            let wait = |ledger: &mut Ledger| !ledger.closed;
            let waited = self.work.wait_timeout_while(ledger, PAUSE, wait);
            ledger = waited.unwrap_or_else(PoisonError::into_inner).0;
            is_due = true;
        }
        loop {
            let left = ledger.is_dirty().then(|| {
                let now = self.clock.elapsed();
                let since = *ledger.gathers_since.get_or_insert(now);
                GATHERING.saturating_sub(now.saturating_sub(since))
            });
            is_due |= ledger.closed || !self.health.is_up();
            is_due |= left.is_some_and(|left| left.is_zero()) || ledger.next.is_due();
            if is_due || !waits || !ledger.loads.is_empty() {
                break;
            }
            ledger = if let Some(left) = left {
                ledger.writer = Writer::Gathers;
                let waited = self.work.wait_timeout(ledger, left);
                let (ledger, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                is_due = waited.timed_out();
                ledger
            } else {
                ledger.writer = Writer::Waits;
                let waited = self.work.wait_timeout(ledger, patience);
                let (ledger, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                waits = !waited.timed_out();
                ledger
            };
        }
        ledger.writer = Writer::Works;
        if ledger.closed && ledger.loads.is_empty() && !ledger.is_dirty() {
            return None;
        }
        Some(Work {
            loads: mem::take(&mut ledger.loads),
            batch: is_due.then(|| ledger.take_batch()).flatten(),
        })
    }

    /// Unpins the counters of committed changes.
    pub(super) fn written(&self, changes: Vec<Changed>) {
        let mut ledger = self.lock();
        for change in changes {
            ledger.unpin(change.slot);
        }
    }

    /// Marks changes that could not be written as changed again. Returns whether the store is closed.
    pub(super) fn put_back(&self, changes: Vec<Changed>) -> bool {
        let mut ledger = self.lock();
        for change in changes {
            // The writer itself calls this, so it need not be woken.
            let _ = ledger.changed(change.slot);
            ledger.unpin(change.slot);
        }
        ledger.closed
    }
}

/// Keeps a counter in memory while a request uses it.
pub(super) struct Pin {
    shared: Arc<Shared>,
    slot: Slot,
}

impl Pin {
    /// Pins a counter and passes it to `then` if it is in memory. Otherwise returns what to wait for.
    pub(super) fn with<T>(
        shared: &Arc<Shared>,
        counter: Counter,
        then: impl Fn(&mut Ledger, Slot) -> T,
    ) -> (Self, Result<T, Loading>) {
        let mut ledger = shared.lock();
        let (slot, is_loaded) = ledger.pin(counter);
        let result = if is_loaded {
            Ok(then(&mut ledger, slot))
        } else {
            let loading = ledger.load(slot);
            if ledger.begins_to_work() {
                shared.work.notify_one();
            }
            Err(loading)
        };
        drop(ledger);
        let shared = shared.clone();
        (Self { shared, slot }, result)
    }

    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.shared.lock().unpin(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use jiff::Timestamp;
    use policies::{PolicyName, Window};

    use super::*;

    const WINDOW: Window = Window {
        start: Timestamp::UNIX_EPOCH,
        end: Timestamp::MAX,
    };

    /// A clock that moves only when told.
    #[derive(Default)]
    struct StandingClock {
        elapsed_ms: AtomicU64,
    }

    impl StandingClock {
        fn advance(&self, by: Duration) {
            let by = u64::try_from(by.as_millis()).expect("it is short");
            self.elapsed_ms.fetch_add(by, Ordering::Relaxed);
        }
    }

    impl Clock for StandingClock {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn elapsed(&self) -> Duration {
            Duration::from_millis(self.elapsed_ms.load(Ordering::Relaxed))
        }
    }

    /// A ledger with one counter in memory, pinned by the returned pin.
    fn shared() -> (Arc<Shared>, Pin, Arc<StandingClock>) {
        let clock = Arc::<StandingClock>::default();
        let name = policies::StoreName::parse("main").expect("it is a name");
        let health = Health::new(name, PAUSE, clock.clone());
        let shared = Arc::new(Shared::new(health, clock.clone()));
        let pin = want(&shared, "somebody");
        assert_eq!(work(&shared), (1, None));
        shared.lock().row(pin.slot(), WINDOW);
        (shared, pin, clock)
    }

    fn counter(key: &str) -> Counter {
        Counter {
            policy: PolicyName::parse("daily").expect("it is a name"),
            key: key.to_owned(),
        }
    }

    /// Requests a counter that is not in memory.
    fn want(shared: &Arc<Shared>, key: &str) -> Pin {
        let (pin, loading) = Pin::with(shared, counter(key), |_, _| ());
        assert!(loading.is_err(), "it is not in memory");
        pin
    }

    fn count(shared: &Arc<Shared>) -> Arc<Commit> {
        let (_pin, change) = Pin::with(shared, counter("somebody"), |ledger, slot| {
            ledger.row(slot, WINDOW).used += 1;
            ledger.changed(slot)
        });
        shared.announce(change.expect("it is in memory"))
    }

    /// The writer's next work: how many counters it reads, and what it writes of the one in memory.
    fn work(shared: &Shared) -> (usize, Option<u64>) {
        let work = shared.next_work(PAUSE).expect("there is work");
        let used = work.batch.map(|batch| batch.changes[0].row.used);
        (work.loads.len(), used)
    }

    #[test]
    fn what_is_counted_is_written_as_soon_as_half_of_it_is_waited_for() {
        let (shared, _pin, _clock) = shared();
        let commit = count(&shared);
        for _ in 0..3 {
            assert!(Arc::ptr_eq(&commit, &count(&shared)));
        }
        shared.lock().writer = Writer::Gathers;
        let _first = commit.wait(&shared);
        assert!(!commit.is_due());
        assert!(shared.lock().writer == Writer::Gathers, "it is not woken");
        let _second = commit.wait(&shared);
        assert!(commit.is_due());
        assert!(shared.lock().writer == Writer::Works, "it is woken");
        assert_eq!(work(&shared), (0, Some(4)));
        // Later counts are in the next commit, which is not due yet.
        let next = count(&shared);
        assert!(!Arc::ptr_eq(&commit, &next));
        assert!(!next.is_due());
    }

    #[test]
    fn who_asks_alone_has_it_written_at_once() {
        let (shared, _pin, _clock) = shared();
        let commit = count(&shared);
        let _waiting = commit.wait(&shared);
        assert!(commit.is_due());
        assert_eq!(work(&shared), (0, Some(1)));
    }

    #[test]
    fn what_is_read_is_read_at_once_and_puts_no_commit_off() {
        let (shared, _pin, clock) = shared();
        count(&shared);
        let _first = want(&shared, "else");
        assert_eq!(work(&shared), (1, None));
        clock.advance(GATHERING / 2);
        let _second = want(&shared, "still else");
        assert_eq!(work(&shared), (1, None));
        clock.advance(GATHERING / 2);
        let _third = want(&shared, "again else");
        assert_eq!(work(&shared), (1, Some(1)));
    }

    #[test]
    fn what_nobody_waits_for_is_written_too_and_a_store_that_closes_writes_all() {
        let (shared, _pin, _clock) = shared();
        for _ in 0..16 {
            count(&shared);
        }
        assert_eq!(work(&shared), (0, Some(16)));
        count(&shared);
        shared.close();
        assert_eq!(work(&shared), (0, Some(17)));
        assert!(shared.next_work(PAUSE).is_none());
    }
}
