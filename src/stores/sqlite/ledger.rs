//! The counters in memory, and what must be written.

use std::{collections::HashMap, mem, sync::Arc, time::Duration};

use policies::{Counter, Window};
use tokio::sync::{SetOnce, oneshot};

use super::{
    database::{Change, Row},
    records::RecordChange,
};
use crate::stores::fault::StoreFault;

/// How many counters stay in memory. Only counters with unwritten changes may exceed this.
pub(super) const MAX_COUNTERS: usize = 65_536;

/// The result of a commit. Every request whose change is in it waits for it.
pub(super) type Commit = Arc<SetOnce<Result<(), StoreFault>>>;

/// Resolves when a counter is in memory, or cannot be read.
pub(super) type Loading = oneshot::Receiver<Result<(), StoreFault>>;

pub(super) struct Load {
    pub(super) counter: Arc<Counter>,
    pub(super) reply: oneshot::Sender<Result<(), StoreFault>>,
}

pub(super) struct Ledger {
    counters: HashMap<Arc<Counter>, Entry>,
    pub(super) pending: Pending,
    loads: Vec<Load>,
    /// The generation of the latest commit that is on disk.
    committed: u64,
    pub(super) is_closed: bool,
}

pub(super) struct Entry {
    row: Row,
    /// The generation of the commit with its latest change; 0 if there is none.
    generation: u64,
}

/// The changes of the next commit.
pub(super) struct Pending {
    commit: Commit,
    /// Commits are numbered from 1.
    generation: u64,
    counters: Vec<Arc<Counter>>,
    records: Vec<RecordChange>,
    changes: usize,
    /// How many requests with changes wait for the commit.
    waiting: usize,
    /// When the writer began to gather changes.
    pub(super) since: Option<Duration>,
}

pub(super) struct Batch {
    pub(super) changes: Vec<Change>,
    pub(super) records: Vec<RecordChange>,
    pub(super) commit: Commit,
    generation: u64,
}

impl Entry {
    /// The row in the window that [follows](Window::follow) `window`.
    pub(super) fn row_in(&self, window: Window) -> Row {
        let (window, used) = self.row.window.follow(self.row.used, window);
        Row { window, used }
    }

    /// Moves the row to the window that follows `window`. The caller must [add](Pending::add) the change.
    pub(super) fn move_to(&mut self, window: Window) -> &mut Row {
        self.row = self.row_in(window);
        &mut self.row
    }

    /// The row as it is.
    pub(super) fn current_row(&mut self) -> &mut Row {
        &mut self.row
    }
}

impl Pending {
    fn new(generation: u64) -> Self {
        Self {
            commit: Commit::default(),
            generation,
            counters: Vec::new(),
            records: Vec::new(),
            changes: 0,
            waiting: 0,
            since: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counters.is_empty() && self.records.is_empty()
    }

    /// Adds a change of a counter, and returns the commit that will write it.
    pub(super) fn add(&mut self, counter: &Arc<Counter>, entry: &mut Entry) -> Commit {
        self.changes += 1;
        if entry.generation != self.generation {
            entry.generation = self.generation;
            self.counters.push(counter.clone());
        }
        self.commit.clone()
    }

    /// Adds a change of records, and returns the commit that will write it.
    pub(super) fn add_record_change(&mut self, change: RecordChange) -> Commit {
        self.changes += 1;
        self.records.push(change);
        self.commit.clone()
    }

    /// Records that a request waits for `commit`. Returns whether this makes the commit due.
    pub(super) fn add_waiting(&mut self, commit: &Commit) -> bool {
        if !Arc::ptr_eq(&self.commit, commit) {
            return false;
        }
        let was_due = self.is_due();
        self.waiting += 1;
        !was_due && self.is_due()
    }

    /// A commit is due when half of its changes are waited for. While it is written, requests with the other half
    /// continue. A single request does not wait for others. In the load bench without latency of Imgwire, this brings 10 %
    /// more requests than a commit as soon as one request waits, and 25 % more than a commit whenever there are changes.
    pub(super) fn is_due(&self) -> bool {
        self.waiting > 0 && 2 * self.waiting >= self.changes
    }
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            counters: HashMap::new(),
            pending: Pending::new(1),
            loads: Vec::new(),
            committed: 0,
            is_closed: false,
        }
    }

    pub(super) fn entry(&mut self, counter: &Counter) -> Option<(&mut Entry, &mut Pending)> {
        Some((self.counters.get_mut(counter)?, &mut self.pending))
    }

    pub(super) fn load(&mut self, counter: &Arc<Counter>) -> Loading {
        let (reply, loading) = oneshot::channel();
        let counter = counter.clone();
        self.loads.push(Load { counter, reply });
        loading
    }

    pub(super) fn has_loads(&self) -> bool {
        !self.loads.is_empty()
    }

    /// Takes the counters that must be read, and makes room for them.
    pub(super) fn take_loads(&mut self) -> Vec<Load> {
        if self.counters.len() + self.loads.len() > MAX_COUNTERS {
            self.counters
                .retain(|_, entry| entry.generation > self.committed);
        }
        mem::take(&mut self.loads)
    }

    /// Stores what was read, unless the counter is already in memory.
    pub(super) fn loaded(&mut self, counter: Arc<Counter>, row: Option<Row>) {
        let row = row.unwrap_or(Row::UNUSED);
        let entry = Entry { row, generation: 0 };
        self.counters.entry(counter).or_insert(entry);
    }

    pub(super) fn take_batch(&mut self) -> Option<Batch> {
        if self.pending.is_empty() {
            return None;
        }
        let next = Pending::new(self.pending.generation + 1);
        let pending = mem::replace(&mut self.pending, next);
        let changes = pending.counters.into_iter().filter_map(|counter| {
            let row = self.counters.get(&counter)?.row;
            Some(Change { counter, row })
        });
        Some(Batch {
            changes: changes.collect(),
            records: pending.records,
            commit: pending.commit,
            generation: pending.generation,
        })
    }

    pub(super) fn written(&mut self, batch: &Batch) {
        self.committed = batch.generation;
    }

    /// Adds the counters of a failed batch to the next commit. Its changes of records fail with it.
    pub(super) fn put_back(&mut self, batch: &Batch) {
        for Change { counter, .. } in &batch.changes {
            if let Some(entry) = self.counters.get_mut(counter) {
                let _ = self.pending.add(counter, entry);
            }
        }
    }
}
