//! Pending commits, and how requests wait for them.

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

/// Shared by the tasks of a thread.
type Wait = future::Shared<LocalBoxFuture<'static, Result<(), String>>>;

thread_local! {
    /// The latest wait of this thread. The weak pointer prevents reuse of its address.
    static LATEST_WAIT: RefCell<Option<(Weak<Commit>, Wait)>> = const { RefCell::new(None) };
}

/// A pending commit. Every request with a count in it waits for it.
pub(super) struct Commit {
    result: SetOnce<Result<(), String>>,
    changes: AtomicUsize,
    /// How many requests with changes wait for it.
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

    pub(super) fn add_change(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// A commit is due when half of its changes are waited for. Requests still process the other half meanwhile, so
    /// neither side waits for the other, and a single request is committed at once.
    pub(super) fn is_due(&self) -> bool {
        let waiting = self.waiting.load(Ordering::Relaxed);
        waiting > 0 && 2 * waiting >= self.changes.load(Ordering::Relaxed)
    }

    /// Waits until the commit is on disk, has failed, or is late. All waiters of a thread share one wait and its timer:
    /// the writer wakes one task per thread, and that task wakes the others.
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
        // Only the writer sets it, once.
        let _ = self.result.set(result);
    }
}
