//! The counters in memory, and which of them must be written.

use std::{collections::HashMap, mem, sync::Arc, time::Duration};

use policies::{Counter, Window};
use slab::Slab;
use tokio::sync::oneshot;

use super::commit::Commit;

/// How many unused counters stay in memory.
const MAX_IDLE_COUNTERS: usize = 65_536;

#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) window: Window,
    pub(super) used: u64,
}

/// A change of a counter. Announce it with [`Shared::announce`](super::shared::Shared::announce) after the ledger's
/// lock is released.
#[must_use]
pub(super) struct Change {
    pub(super) commit: Arc<Commit>,
    pub(super) wakes_writer: bool,
}

/// Resolves when a counter is in memory, or cannot be read.
pub(super) type Loading = oneshot::Receiver<Result<(), String>>;

/// A counter that must be loaded.
pub(super) struct Load {
    pub(super) counter: Arc<Counter>,
    pub(super) reply: oneshot::Sender<Result<(), String>>,
}

/// A counter's position in the ledger. Valid while the counter is pinned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot(usize);

/// A counter that must be written.
pub(super) struct Changed {
    pub(super) slot: Slot,
    pub(super) counter: Arc<Counter>,
    pub(super) row: Row,
}

pub(super) struct Ledger {
    slots: HashMap<Arc<Counter>, Slot>,
    entries: Slab<Entry>,
    /// Pinned counters that differ from the disk.
    dirty: Vec<Slot>,
    pub(super) loads: Vec<Load>,
    pub(super) next: Arc<Commit>,
    /// When the writer began to gather changes.
    pub(super) gathers_since: Option<Duration>,
    pub(super) writer: Writer,
    pub(super) closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// It reads, writes, or is about to check whether it must.
    Works,
    /// It waits for the first change.
    Waits,
    /// It waits for more changes.
    Gathers,
}

pub(super) struct Batch {
    pub(super) changes: Vec<Changed>,
    pub(super) commit: Arc<Commit>,
}

struct Entry {
    counter: Arc<Counter>,
    /// `None` until it is loaded.
    row: Option<Row>,
    /// How many users it has, the writer included. It stays in memory while there are any.
    pins: usize,
    is_dirty: bool,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            slots: HashMap::new(),
            entries: Slab::new(),
            dirty: Vec::new(),
            loads: Vec::new(),
            next: Commit::new(),
            gathers_since: None,
            writer: Writer::Works,
            closed: false,
        }
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The row of a loaded counter, in `window` or in its own window if that is later.
    pub(super) fn row(&mut self, slot: Slot, window: Window) -> &mut Row {
        let row = &mut self.entries[slot.0].row;
        let row = row.get_or_insert(Row { window, used: 0 });
        if row.window.start < window.start {
            *row = Row { window, used: 0 };
        }
        row
    }

    /// Marks a counter as changed, and returns the commit that will write it.
    pub(super) fn changed(&mut self, slot: Slot) -> Change {
        let wakes_writer = self.writer == Writer::Waits && self.begins_to_work();
        self.next.add_change();
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

    /// Stores what was read, unless the counter is no longer needed or is already loaded.
    pub(super) fn loaded(&mut self, counter: &Counter, row: Option<Row>) {
        if let (Some(slot), Some(row)) = (self.slots.get(counter), row) {
            self.entries[slot.0].row.get_or_insert(row);
        }
    }

    /// Takes everything that must be written.
    pub(super) fn take_batch(&mut self) -> Option<Batch> {
        self.gathers_since = None;
        if self.dirty.is_empty() {
            return None;
        }
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

    /// Marks the writer as awake. Returns whether it must be woken: while it works, it checks again anyway.
    pub(super) fn begins_to_work(&mut self) -> bool {
        mem::replace(&mut self.writer, Writer::Works) != Writer::Works
    }

    /// Requests that a pinned counter is loaded.
    pub(super) fn load(&mut self, slot: Slot) -> Loading {
        let (reply, loading) = oneshot::channel();
        let counter = self.entries[slot.0].counter.clone();
        self.loads.push(Load { counter, reply });
        loading
    }

    /// Also returns whether the counter is loaded.
    pub(super) fn pin(&mut self, counter: Counter) -> (Slot, bool) {
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

    pub(super) fn unpin(&mut self, slot: Slot) {
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
