//! The commits to come, and the wait for them.

use std::{
    cell::RefCell,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::{self, FutureExt as _, LocalBoxFuture};
use tokio::sync::SetOnce;

use super::shared::Shared;

/// The wait for a commit, shared by a thread's tasks.
type Wait = future::Shared<LocalBoxFuture<'static, Result<(), String>>>;

thread_local! {
    /// The wait that this thread began last. The weak pointer keeps its address from being used anew.
    static LATEST_WAIT: RefCell<Option<(Weak<Commit>, Wait)>> = const { RefCell::new(None) };
}

/// A commit to come: waited for by everyone whose count is in it.
pub(super) struct Commit {
    result: SetOnce<Result<(), String>>,
    /// How many changes are in it.
    changes: AtomicUsize,
    /// How many of those who made them wait for it.
    waiting: AtomicUsize,
}

impl Commit {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            result: SetOnce::new(),
            changes: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Notes one more change in it.
    pub(super) fn add_change(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether it is time for it: half of what is in it is waited for. The other half is still worked at while it is
    /// made, so neither has to wait for the other; and who asks alone has it at once.
    pub(super) fn is_due(&self) -> bool {
        let waiting = self.waiting.load(Ordering::Relaxed);
        waiting > 0 && 2 * waiting >= self.changes.load(Ordering::Relaxed)
    }

    /// Waits until it has reached the disk, or failed, or is late. All who wait on one thread share
    /// one wait and its timer: the writer wakes one task of a thread, and that one the others.
    pub(super) fn wait(self: &Arc<Self>, shared: &Arc<Shared>) -> Wait {
        if !self.result.initialized() {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            if self.is_due() {
                shared.hasten(self);
            }
        }
        LATEST_WAIT.with_borrow_mut(|latest| {
            if let Some((commit, wait)) = latest
                && std::ptr::eq(commit.as_ptr(), Arc::as_ptr(self))
            {
                return wait.clone();
            }
            let (commit, shared) = (self.clone(), shared.clone());
            let wait = async move { shared.in_time(commit.result.wait()).await?.clone() };
            let wait = wait.boxed_local().shared();
            *latest = Some((Arc::downgrade(self), wait.clone()));
            wait
        })
    }

    pub(super) fn finish(&self, result: Result<(), String>) {
        // Set once, by the writer alone.
        let _ = self.result.set(result);
    }
}
