//! The counters in memory, and what of them is to be written.

use std::{
    cell::RefCell,
    collections::HashMap,
    mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::{self, FutureExt as _, LocalBoxFuture};
use policies::{Counter, StoreName, Window};
use slab::Slab;
use tokio::sync::{SetOnce, oneshot};

/// How many counters stay in memory when nobody uses them.
const MAX_IDLE_COUNTERS: usize = 65_536;

/// How long the writer waits for more before it commits: a commit costs the same for one count as for many, and
/// Imgwire takes longer than this anyway. Who has a token already and waits for fewer than [`COMPANY`] is spared it.
const GATHERING: Duration = Duration::from_micros(500);

/// How long it waits for still more if Imgwire takes longer than a commit: if nobody waits for this one, or has waited
/// for any of the last [`UNAWAITED`].
const GATHERING_MORE: Duration = Duration::from_micros(1500);
const UNAWAITED: u32 = 16;

/// From how many changes on more are likely to come at once.
const COMPANY: usize = 8;

/// How long a disk that fails is left alone before it is probed.
const PAUSE: Duration = Duration::from_millis(500);

/// What is counted under one key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) window: Window,
    pub(super) used: u64,
}

/// The wait for a commit, shared by a thread's tasks.
type Wait = future::Shared<LocalBoxFuture<'static, Result<(), String>>>;

thread_local! {
    /// The wait that this thread began last. The weak pointer keeps its address from being used anew.
    static LATEST_WAIT: RefCell<Option<(Weak<Commit>, Wait)>> = const { RefCell::new(None) };
}

/// A commit to come: waited for by everyone whose count is in it.
pub(super) struct Commit(SetOnce<Result<(), String>>);

impl Commit {
    fn new() -> Arc<Self> {
        Arc::new(Self(SetOnce::new()))
    }

    /// Waits until it has reached the disk, or failed, or `timeout` is over. All who wait on one thread share
    /// one wait and its timer: the writer wakes one task of a thread, and that one the others.
    pub(super) fn wait(self: &Arc<Self>, shared: &Arc<Shared>, timeout: Duration) -> Wait {
        LATEST_WAIT.with_borrow_mut(|latest| {
            if let Some((commit, wait)) = latest
                && std::ptr::eq(commit.as_ptr(), Arc::as_ptr(self))
            {
                return wait.clone();
            }
            if !self.0.initialized() {
                shared.hasten(self);
            }
            let (commit, shared) = (self.clone(), shared.clone());
            let wait = async move { shared.in_time(timeout, commit.0.wait()).await?.clone() };
            let wait = wait.boxed_local().shared();
            *latest = Some((Arc::downgrade(self), wait.clone()));
            wait
        })
    }

    pub(super) fn finish(&self, result: Result<(), String>) {
        // Set once, by the writer alone.
        let _ = self.0.set(result);
    }
}

/// A change of a counter, to be announced by [`Shared::announce`] when the ledger is free again.
#[must_use]
pub(super) struct Change {
    commit: Arc<Commit>,
    wakes_writer: bool,
}

/// Resolves when a counter is in memory, or cannot be read.
pub(super) type Loading = oneshot::Receiver<Result<(), String>>;

/// A counter that somebody wants in memory.
pub(super) struct Load {
    pub(super) counter: Arc<Counter>,
    pub(super) reply: oneshot::Sender<Result<(), String>>,
}

/// Where in the ledger a counter is. It is valid as long as the counter is pinned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot(usize);

/// A counter that is to be written.
pub(super) struct Changed {
    slot: Slot,
    pub(super) counter: Arc<Counter>,
    pub(super) row: Row,
}

/// The counters, under one lock.
pub(super) struct Ledger {
    slots: HashMap<Arc<Counter>, Slot>,
    entries: Slab<Entry>,
    /// Counters that differ from what is on the disk; pinned.
    dirty: Vec<Slot>,
    loads: Vec<Load>,
    next: Arc<Commit>,
    /// How many changes the next commit has.
    changes: usize,
    /// Whether somebody waits for it.
    is_awaited: bool,
    /// How many commits nobody has waited for, since one that somebody did.
    unawaited: u32,
    writer: Writer,
    closed: bool,
}

/// What the writer is at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// It reads, writes, or is about to look whether it is to.
    Works,
    /// It waits for the first change.
    Waits,
    /// It waits for more of them.
    Gathers,
    /// It waits for still more, and for anybody who wants them written.
    GathersMore,
}

/// A counter in memory.
struct Entry {
    counter: Arc<Counter>,
    /// What is counted; `None` until it is loaded.
    row: Option<Row>,
    /// How many use it, the writer included; it stays as long as any does.
    pins: usize,
    is_dirty: bool,
}

impl Ledger {
    /// The row of a counter that is loaded, in `window` or in the later one that it is in already.
    pub(super) fn row(&mut self, slot: Slot, window: Window) -> &mut Row {
        let row = &mut self.entries[slot.0].row;
        let row = row.get_or_insert(Row { window, used: 0 });
        if row.window.start < window.start {
            *row = Row { window, used: 0 };
        }
        row
    }

    /// Notes that a counter is to be written; returns the commit that will do it.
    pub(super) fn changed(&mut self, slot: Slot) -> Change {
        let wakes_writer = self.writer == Writer::Waits && self.begins_to_work();
        self.changes += 1;
        let entry = &mut self.entries[slot.0];
        if !mem::replace(&mut entry.is_dirty, true) {
            entry.pins += 1;
            self.dirty.push(slot);
        }
        Change {
            commit: self.next.clone(),
            wakes_writer,
        }
    }

    /// Gives one unit back, unless its window is over.
    pub(super) fn give_back(&mut self, slot: Slot, window: Window) -> Option<Change> {
        let row = self.entries[slot.0].row.as_mut()?;
        if row.window.start != window.start {
            return None;
        }
        row.used = row.used.saturating_sub(1);
        Some(self.changed(slot))
    }

    /// Puts what was read into memory, unless nobody wants it any more or it is there already.
    pub(super) fn loaded(&mut self, counter: &Counter, row: Option<Row>) {
        if let (Some(slot), Some(row)) = (self.slots.get(counter), row) {
            self.entries[slot.0].row.get_or_insert(row);
        }
    }

    /// Takes what is to be written out of the ledger.
    fn take_batch(&mut self) -> Option<Batch> {
        self.changes = 0;
        self.is_awaited = false;
        if self.dirty.is_empty() {
            return None;
        }
        self.unawaited = self.unawaited.saturating_add(1);
        let dirty = mem::take(&mut self.dirty).into_iter();
        let changes = dirty.filter_map(|slot| {
            let entry = &mut self.entries[slot.0];
            entry.is_dirty = false;
            let counter = entry.counter.clone();
            entry.row.map(|row| Changed { slot, counter, row })
        });
        Some(Batch {
            changes: changes.collect(),
            commit: mem::replace(&mut self.next, Commit::new()),
        })
    }

    /// Notes that the writer is woken. Returns whether it has to be: while it works it will look again anyway.
    fn begins_to_work(&mut self) -> bool {
        mem::replace(&mut self.writer, Writer::Works) != Writer::Works
    }

    /// Pins a counter, and says whether it is loaded.
    fn pin(&mut self, counter: Counter) -> (Slot, bool) {
        if let Some(&slot) = self.slots.get(&counter) {
            let entry = &mut self.entries[slot.0];
            entry.pins += 1;
            return (slot, entry.row.is_some());
        }
        let counter = Arc::new(counter);
        let slot = Slot(self.entries.insert(Entry {
            counter: counter.clone(),
            row: None,
            pins: 1,
            is_dirty: false,
        }));
        self.slots.insert(counter, slot);
        (slot, false)
    }

    fn unpin(&mut self, slot: Slot) {
        self.entries[slot.0].pins -= 1;
        if self.entries.len() > MAX_IDLE_COUNTERS {
            let slots = &mut self.slots;
            self.entries.retain(|_, entry| {
                let stays = entry.pins > 0;
                if !stays {
                    slots.remove(&entry.counter);
                }
                stays
            });
        }
    }
}

/// What the requests and the writer share.
pub(super) struct Shared {
    pub(super) name: StoreName,
    ledger: Mutex<Ledger>,
    work: Condvar,
    healthy: AtomicBool,
}

/// What the writer is to do next.
pub(super) struct Work {
    pub(super) loads: Vec<Load>,
    pub(super) batch: Option<Batch>,
}

/// What is written at once.
pub(super) struct Batch {
    pub(super) changes: Vec<Changed>,
    pub(super) commit: Arc<Commit>,
}

impl Shared {
    pub(super) fn new(name: StoreName) -> Self {
        Self {
            name,
            ledger: Mutex::new(Ledger {
                slots: HashMap::new(),
                entries: Slab::new(),
                dirty: Vec::new(),
                loads: Vec::new(),
                next: Commit::new(),
                changes: 0,
                is_awaited: false,
                unawaited: 0,
                writer: Writer::Works,
                closed: false,
            }),
            work: Condvar::new(),
            healthy: AtomicBool::new(true),
        }
    }

    /// The ledger; every change to it leaves it whole, so a panic elsewhere does no harm.
    pub(super) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    pub(super) fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Relaxed);
    }

    /// Gives the disk no more than `timeout`. One that takes longer is not waited for again until the writer
    /// has found that it works.
    pub(super) async fn in_time<T>(
        &self,
        timeout: Duration,
        operation: impl Future<Output = T>,
    ) -> Result<T, String> {
        let result = tokio::time::timeout(timeout, operation).await;
        result.map_err(|_| {
            self.set_healthy(false);
            let _ledger = self.lock();
            self.work.notify_one();
            "the disk did not answer in time".to_owned()
        })
    }

    /// Has `commit`, which somebody waits for, made soon, if it is still to come.
    fn hasten(&self, commit: &Arc<Commit>) {
        let mut ledger = self.lock();
        ledger.unawaited = 0;
        if !Arc::ptr_eq(&ledger.next, commit) {
            return;
        }
        ledger.is_awaited = true;
        let gathers_on = ledger.writer == Writer::Gathers && ledger.changes >= COMPANY;
        if !gathers_on && ledger.begins_to_work() {
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

    /// Tells the writer to finish.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
    }

    /// Waits for work, and takes it; `None` when there is none left and the store is closed. What is read is read
    /// at once; what is written is given some time to become more. A disk that fails is left alone for [`PAUSE`];
    /// then there may be no work but to probe it.
    pub(super) fn next_work(&self) -> Option<Work> {
        let mut ledger = self.lock();
        let mut is_due = false;
        if !self.is_healthy() {
            let wait = |ledger: &mut Ledger| !ledger.closed;
            let waited = self.work.wait_timeout_while(ledger, PAUSE, wait);
            ledger = waited.unwrap_or_else(PoisonError::into_inner).0;
            is_due = true;
        }
        let mut has_gathered = false;
        while !is_due && ledger.loads.is_empty() {
            let is_wanted = ledger.is_awaited && (has_gathered || ledger.changes < COMPANY);
            is_due = is_wanted || ledger.closed || !self.is_healthy();
            if is_due {
                break;
            }
            ledger = if ledger.dirty.is_empty() {
                ledger.writer = Writer::Waits;
                let waited = self.work.wait(ledger);
                waited.unwrap_or_else(PoisonError::into_inner)
            } else {
                let (writer, time) = if has_gathered {
                    (Writer::GathersMore, GATHERING_MORE)
                } else {
                    (Writer::Gathers, GATHERING)
                };
                ledger.writer = writer;
                let waited = self.work.wait_timeout(ledger, time);
                let (ledger, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                let gathers_more = !has_gathered && ledger.unawaited >= UNAWAITED;
                is_due = timeout.timed_out() && !gathers_more;
                has_gathered |= timeout.timed_out();
                ledger
            };
        }
        ledger.writer = Writer::Works;
        if ledger.closed && ledger.loads.is_empty() && ledger.dirty.is_empty() {
            return None;
        }
        Some(Work {
            loads: mem::take(&mut ledger.loads),
            batch: is_due.then(|| ledger.take_batch()).flatten(),
        })
    }

    /// Has changes that were written no longer keep their counters.
    pub(super) fn written(&self, changes: Vec<Changed>) {
        let mut ledger = self.lock();
        for change in changes {
            ledger.unpin(change.slot);
        }
    }

    /// Puts changes that could not be written back, to be tried again; returns whether the store is closed.
    pub(super) fn put_back(&self, changes: Vec<Changed>) -> bool {
        let mut ledger = self.lock();
        for change in changes {
            // It is the writer that puts back, so nobody is to be woken.
            let _ = ledger.changed(change.slot);
            ledger.unpin(change.slot);
        }
        ledger.closed
    }
}

/// Keeps a counter in memory as long as a request uses it.
pub(super) struct Pin {
    shared: Arc<Shared>,
    slot: Slot,
}

impl Pin {
    /// Pins a counter and hands it to `then`, if it is in memory; or else says what to wait for.
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
            let (reply, loaded) = oneshot::channel();
            let counter = ledger.entries[slot.0].counter.clone();
            ledger.loads.push(Load { counter, reply });
            if ledger.begins_to_work() {
                shared.work.notify_one();
            }
            Err(loaded)
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
    use policies::PolicyName;

    use super::*;

    const WINDOW: Window = Window {
        start: jiff::Timestamp::UNIX_EPOCH,
        end: jiff::Timestamp::MAX,
    };

    fn shared() -> Arc<Shared> {
        Arc::new(Shared::new(StoreName::parse("main").expect("it is a name")))
    }

    fn counter() -> Counter {
        Counter {
            policy: PolicyName::parse("daily").expect("it is a name"),
            key: "somebody".to_owned(),
        }
    }

    /// Counts one unit under a counter that is in memory.
    fn count(shared: &Arc<Shared>) -> Arc<Commit> {
        let (_pin, change) = Pin::with(shared, counter(), |ledger, slot| {
            ledger.row(slot, WINDOW).used += 1;
            ledger.changed(slot)
        });
        shared.announce(change.expect("it is in memory"))
    }

    fn work(shared: &Shared) -> (usize, Option<u64>) {
        let work = shared.next_work().expect("there is work");
        let used = work.batch.map(|batch| batch.changes[0].row.used);
        (work.loads.len(), used)
    }

    #[test]
    fn what_is_read_is_read_at_once_and_what_is_counted_is_written_when_it_is_wanted() {
        let shared = shared();
        let (pin, loading) = Pin::with(&shared, counter(), |_, _| ());
        assert!(loading.is_err(), "it is not in memory");
        assert_eq!(work(&shared), (1, None));
        shared.lock().row(pin.slot(), WINDOW);
        let commit = count(&shared);
        assert!(Arc::ptr_eq(&commit, &count(&shared)));
        // Somebody else's counter is read before.
        let other = Counter {
            key: "else".to_owned(),
            ..counter()
        };
        let _other = Pin::with(&shared, other, |_, _| ());
        assert_eq!(work(&shared), (1, None));
        assert!(!shared.lock().is_awaited);
        let _waiting = commit.wait(&shared, PAUSE);
        assert!(shared.lock().is_awaited);
        assert_eq!(work(&shared), (0, Some(2)));
        assert!(!Arc::ptr_eq(&commit, &count(&shared)));
    }

    #[test]
    fn what_nobody_waits_for_is_written_too_and_a_store_that_closes_writes_all() {
        let shared = shared();
        let (pin, _) = Pin::with(&shared, counter(), |_, _| ());
        assert_eq!(work(&shared), (1, None));
        shared.lock().row(pin.slot(), WINDOW);
        for _ in 0..2 * COMPANY {
            count(&shared);
        }
        assert_eq!(work(&shared), (0, Some(16)));
        let commit = count(&shared);
        // It counts how often nobody waits, and begins anew when somebody does who must.
        assert_eq!(shared.lock().unawaited, 1);
        let _waiting = commit.wait(&shared, PAUSE);
        assert_eq!(shared.lock().unawaited, 0);
        shared.close();
        assert_eq!(work(&shared), (0, Some(17)));
        assert!(shared.next_work().is_none());
    }
}
