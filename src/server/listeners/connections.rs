//! The open connections of a listener, and how the gate closes those that wait for a request.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
};

use parking_lot::Mutex;

/// Shared by all workers of a listener.
#[derive(Clone, Default)]
pub(super) struct Connections(Arc<Shared>);

#[derive(Default)]
struct Shared {
    is_closing: AtomicBool,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    /// The tasks of the connections. `None` before the first read.
    tasks: HashMap<u64, Option<Waker>>,
}

/// One of them, until it is dropped.
pub(super) struct Connection {
    number: u64,
    shared: Arc<Shared>,
    /// The registered task. A connection stays in one task, so requests register nothing.
    task: Option<Waker>,
}

impl Connections {
    pub(super) fn add(&self) -> Connection {
        let mut open = self.0.open.lock();
        let number = open.next;
        open.next += 1;
        open.tasks.insert(number, None);
        drop(open);
        Connection {
            number,
            shared: self.0.clone(),
            task: None,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.0.open.lock().tasks.len()
    }

    /// From now on, a connection closes as soon as it has no request.
    pub(super) fn close(&self) {
        self.0.is_closing.store(true, Ordering::Release);
        // After this, a task that registers sees that the connections close.
        let open = self.0.open.lock();
        open.tasks.values().flatten().for_each(Waker::wake_by_ref);
    }
}

impl Connection {
    /// Whether to close it if it has no request. Otherwise the task is woken when that changes.
    pub(super) fn is_closing(&mut self, context: &Context<'_>) -> bool {
        let waker = context.waker();
        if !self.task.as_ref().is_some_and(|task| task.will_wake(waker)) {
            self.task = Some(waker.clone());
            let mut open = self.shared.open.lock();
            open.tasks.insert(self.number, Some(waker.clone()));
        }
        self.shared.is_closing.load(Ordering::Acquire)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.open.lock().tasks.remove(&self.number);
    }
}
