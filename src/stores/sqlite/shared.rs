//! How the requests and the writer wake each other.

use std::{cell::RefCell, sync::Arc, time::Duration};

use futures_util::future::{self, FutureExt as _, LocalBoxFuture};
use parking_lot::{Condvar, Mutex, MutexGuard};
use policies::{Clock, Counter, Fault};

use super::{
    super::{fault::StoreFault, health::Health},
    ledger::{Batch, Commit, Entry, Ledger, Load, Loading, Pending},
    records::RecordChange,
};

/// How long the writer gathers changes before it commits. It commits earlier if the commit [is due](Pending::is_due).
const GATHERING: Duration = Duration::from_millis(2);

/// How long to wait before a failed disk is probed.
const PAUSE: Duration = Duration::from_millis(500);

type Wait = future::Shared<LocalBoxFuture<'static, Result<(), StoreFault>>>;

thread_local! {
    static LATEST_WAIT: RefCell<Option<(Commit, Wait)>> = const { RefCell::new(None) };
}

pub(super) struct Shared {
    clock: Arc<dyn Clock>,
    pub(super) health: Health,
    ledger: Mutex<Ledger>,
    /// Wakes the writer.
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

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Every change leaves the ledger consistent, so a panic elsewhere does no harm.
    pub(super) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }

    /// Runs an operation on a counter. If it is not in memory, it is loaded first.
    pub(super) async fn with_counter<T>(
        &self,
        counter: &Arc<Counter>,
        operation: impl Fn(&mut Entry, &mut Pending) -> T,
    ) -> Result<T, Fault> {
        loop {
            let loading = match self.try_with_counter(counter, &operation) {
                Ok(output) => return Ok(output),
                Err(loading) => loading,
            };
            let loaded = match self.limit_time(loading).await {
                Ok(Ok(loaded)) => loaded,
                Ok(Err(_)) => Err(StoreFault::Refused("the store is closed".to_owned())),
                Err(fault) => Err(fault),
            };
            loaded.map_err(|fault| self.health.fault(fault))?;
        }
    }

    fn try_with_counter<T>(
        &self,
        counter: &Arc<Counter>,
        operation: impl FnOnce(&mut Entry, &mut Pending) -> T,
    ) -> Result<T, Loading> {
        let mut ledger = self.lock();
        let Some((entry, pending)) = ledger.entry(counter) else {
            let loading = ledger.load(counter);
            drop(ledger);
            self.work.notify_one();
            return Err(loading);
        };
        let was_empty = pending.is_empty();
        let output = operation(entry, pending);
        let is_first_change = was_empty && !pending.is_empty();
        drop(ledger);
        if is_first_change {
            self.work.notify_one();
        }
        Ok(output)
    }

    /// Adds a change of records to the next commit, and returns the commit.
    pub(super) fn change_records(&self, change: RecordChange) -> Commit {
        let mut ledger = self.lock();
        let was_empty = ledger.pending.is_empty();
        let commit = ledger.pending.add_record_change(change);
        drop(ledger);
        if was_empty {
            self.work.notify_one();
        }
        commit
    }

    pub(super) fn require_up(&self) -> Result<(), Fault> {
        let is_up = self.health.is_up().then_some(());
        is_up.ok_or_else(|| self.health.fault(StoreFault::Down))
    }

    /// Waits until `commit` is on disk, has failed, or is late.
    pub(super) async fn wait(self: &Arc<Self>, commit: &Commit) -> Result<(), Fault> {
        let committed = if let Some(committed) = commit.get() {
            committed.clone()
        } else {
            if self.lock().pending.add_waiting(commit) {
                self.work.notify_one();
            }
            self.thread_wait(commit).await
        };
        committed.map_err(|fault| self.health.fault(fault))
    }

    /// The wait of all requests of this thread, which share its timer. The writer wakes one task per thread, and this
    /// task wakes the others. The load bench shows 4 to 6 % more requests than with one wait per request.
    fn thread_wait(self: &Arc<Self>, commit: &Commit) -> Wait {
        LATEST_WAIT.with_borrow_mut(|latest| {
            if let Some((of, wait)) = latest
                && Arc::ptr_eq(of, commit)
            {
                return wait.clone();
            }
            let (shared, awaited) = (self.clone(), commit.clone());
            let wait = async move { shared.limit_time(awaited.wait()).await?.clone() };
            let wait = wait.boxed_local().shared();
            *latest = Some((commit.clone(), wait.clone()));
            wait
        })
    }

    /// Limits an operation in time. If the writer has finished nothing meanwhile, the disk hangs, and requests fail at
    /// once until it works again.
    async fn limit_time<T>(&self, operation: impl Future<Output = T>) -> Result<T, StoreFault> {
        let before = self.health.answers();
        let result = tokio::time::timeout(self.health.timeout(), operation).await;
        result.map_err(|_| {
            if self.health.answers() == before {
                self.health.mark_down(&StoreFault::Timeout);
                // With the lock, so that the writer does not miss it.
                drop(self.lock());
                self.work.notify_one();
            }
            StoreFault::Timeout
        })
    }

    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.work.notify_one();
    }

    /// Waits for work, and takes it; `None` if the store is closed and no work is left. After `patience`, or if the disk
    /// must be probed, the work may be empty.
    pub(super) fn next_work(&self, patience: Duration) -> Option<Work> {
        let mut ledger = self.lock();
        let mut is_gathered = false;
        if self.health.is_up() {
            self.wait_while(&mut ledger, patience, Pending::is_empty);
            if !ledger.pending.is_empty() {
                let since = *ledger.pending.since.get_or_insert_with(|| self.now());
                let left = (since + GATHERING).saturating_sub(self.now());
                let is_late = self.wait_while(&mut ledger, left, |pending| !pending.is_due());
                is_gathered = is_late || left.is_zero();
            }
        } else {
            self.work
                .wait_while_for(&mut ledger, |ledger| !ledger.is_closed, PAUSE);
        }
        let Ledger { pending, .. } = &*ledger;
        if ledger.is_closed && !ledger.has_loads() && pending.is_empty() {
            return None;
        }
        let is_due = pending.is_due() || is_gathered || ledger.is_closed || !self.health.is_up();
        Some(Work {
            loads: ledger.take_loads(),
            batch: is_due.then(|| ledger.take_batch()).flatten(),
        })
    }

    /// Waits while `condition` holds, unless there is something to read, or the disk failed, or the store is closed.
    /// Returns whether the time is up.
    fn wait_while(
        &self,
        ledger: &mut MutexGuard<'_, Ledger>,
        at_most: Duration,
        condition: impl Fn(&Pending) -> bool,
    ) -> bool {
        let must_wait = |ledger: &mut Ledger| {
            let must_act = ledger.has_loads() || ledger.is_closed || !self.health.is_up();
            !must_act && condition(&ledger.pending)
        };
        let waited = self.work.wait_while_for(ledger, must_wait, at_most);
        waited.timed_out()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use jiff::Timestamp;
    use policies::{PolicyName, StoreName, Window};

    use super::{super::ledger::MAX_COUNTERS, *};

    const WINDOW: Window = Window {
        start: Timestamp::UNIX_EPOCH,
        end: Timestamp::MAX,
    };

    /// A clock that only the test advances.
    #[derive(Default)]
    struct ManualClock {
        elapsed_ms: AtomicU64,
    }

    impl ManualClock {
        fn advance(&self, by: Duration) {
            let by = u64::try_from(by.as_millis()).expect("a short time");
            self.elapsed_ms.fetch_add(by, Ordering::Relaxed);
        }
    }

    impl Clock for ManualClock {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn elapsed(&self) -> Duration {
            Duration::from_millis(self.elapsed_ms.load(Ordering::Relaxed))
        }
    }

    /// A ledger with one counter in memory.
    fn shared() -> (Arc<Shared>, Arc<ManualClock>) {
        let clock = Arc::<ManualClock>::default();
        let name = StoreName::parse("main").expect("a name");
        let health = Health::new(name, PAUSE, clock.clone());
        let shared = Arc::new(Shared::new(health, clock.clone()));
        request(&shared, "user");
        assert_eq!(work(&shared), (1, None));
        shared.lock().loaded(counter("user"), None);
        (shared, clock)
    }

    fn counter(key: &str) -> Arc<Counter> {
        Arc::new(Counter {
            policy: PolicyName::parse("daily").expect("a name"),
            key: key.to_owned(),
        })
    }

    /// Requests a counter that is not in memory.
    fn request(shared: &Shared, key: &str) {
        assert!(shared.try_with_counter(&counter(key), |_, _| ()).is_err());
    }

    fn count(shared: &Shared) -> Commit {
        let counter = counter("user");
        let counted = shared.try_with_counter(&counter, |entry, pending| {
            entry.move_to(WINDOW).used += 1;
            pending.add(&counter, entry)
        });
        counted.expect("it is in memory")
    }

    /// The writer's next work: how many counters it reads, and what it writes of the counter in memory.
    fn work(shared: &Shared) -> (usize, Option<u64>) {
        let work = shared.next_work(PAUSE).expect("there is work");
        let used = work.batch.map(|batch| batch.changes[0].row.used);
        (work.loads.len(), used)
    }

    /// Lets a request wait for a commit. Returns whether the commit is due.
    fn wait(shared: &Arc<Shared>, commit: &Commit) -> bool {
        let waiting = shared.wait(commit).now_or_never();
        assert!(waiting.is_none(), "it is not on disk");
        shared.lock().pending.is_due()
    }

    #[actix_web::test]
    async fn changes_are_written_as_soon_as_half_of_them_are_waited_for() {
        let (shared, _clock) = shared();
        let commit = count(&shared);
        for _ in 0..3 {
            assert!(Arc::ptr_eq(&commit, &count(&shared)));
        }
        assert!(!wait(&shared, &commit));
        assert!(wait(&shared, &commit));
        assert_eq!(work(&shared), (0, Some(4)));
        let next = count(&shared);
        assert!(!Arc::ptr_eq(&commit, &next));
        assert!(!shared.lock().pending.is_due());
    }

    #[actix_web::test]
    async fn change_of_a_single_request_is_written_at_once() {
        let (shared, _clock) = shared();
        let commit = count(&shared);
        assert!(wait(&shared, &commit));
        assert_eq!(work(&shared), (0, Some(1)));
    }

    #[test]
    fn reads_happen_at_once_and_delay_no_commit() {
        let (shared, clock) = shared();
        count(&shared);
        request(&shared, "second");
        assert_eq!(work(&shared), (1, None));
        clock.advance(GATHERING / 2);
        request(&shared, "third");
        assert_eq!(work(&shared), (1, None));
        clock.advance(GATHERING / 2);
        request(&shared, "fourth");
        assert_eq!(work(&shared), (1, Some(1)));
    }

    #[test]
    fn changes_are_written_without_a_waiting_request_and_when_the_store_is_closed() {
        let (shared, _clock) = shared();
        for _ in 0..16 {
            count(&shared);
        }
        assert_eq!(work(&shared), (0, Some(16)));
        count(&shared);
        shared.close();
        assert_eq!(work(&shared), (0, Some(17)));
        assert!(shared.next_work(PAUSE).is_none());
    }

    #[test]
    fn only_counters_with_unwritten_changes_exceed_the_memory_limit() {
        let (shared, _clock) = shared();
        let mut ledger = shared.lock();
        for key in 0..MAX_COUNTERS {
            ledger.loaded(counter(&key.to_string()), None);
        }
        drop(ledger);
        count(&shared);
        request(&shared, "another");
        let (loads, _) = work(&shared);
        assert_eq!(loads, 1);
        request(&shared, "1");
        count(&shared);
        assert_eq!(work(&shared), (1, None));
    }
}
