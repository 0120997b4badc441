//! How much memory the heads of requests may take.
//!
//! actix-http keeps what it read of a connection in a buffer that grows up to 128 KiB and never shrinks. Without a limit
//! over all connections, a thousand clients that send one large head each and then stay idle would hold 128 MB.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// What each connection may send of heads without a reservation. The buffer is at most twice as large.
const FREE_BYTES: usize = 8 * 1024;

/// What the heads of all connections may take together beyond that.
const BUDGET_BYTES: usize = 8 * 1024 * 1024;

/// The room for large heads that all connections of a listener share.
#[derive(Clone, Default)]
pub(super) struct HeadBudget(Arc<Reserved>);

#[derive(Default)]
struct Reserved {
    bytes: AtomicUsize,
    /// Whether a connection was refused since there was room for half of the budget.
    is_exhausted: AtomicBool,
}

/// The room that one connection has, until it ends: its buffer stays as large as it once was.
pub(super) struct HeadRoom {
    budget: HeadBudget,
    reserved: usize,
}

impl HeadBudget {
    pub(super) fn room(&self) -> HeadRoom {
        HeadRoom {
            budget: self.clone(),
            reserved: 0,
        }
    }
}

impl HeadRoom {
    /// Makes room for `bytes` of heads. Returns whether there is room.
    #[must_use]
    pub(super) fn hold(&mut self, bytes: usize) -> bool {
        let wanted = bytes.saturating_sub(FREE_BYTES);
        let Some(more) = wanted.checked_sub(self.reserved).filter(|more| *more > 0) else {
            return true;
        };
        let Reserved {
            bytes,
            is_exhausted,
        } = &*self.budget.0;
        let before = bytes.fetch_add(more, Ordering::Relaxed);
        if before + more > BUDGET_BYTES {
            bytes.fetch_sub(more, Ordering::Relaxed);
            if !is_exhausted.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    reserved = before,
                    "large request heads take all the memory that is for them; connections that send one are closed"
                );
            }
            return false;
        }
        self.reserved = wanted;
        true
    }
}

impl Drop for HeadRoom {
    fn drop(&mut self) {
        if self.reserved == 0 {
            return;
        }
        let Reserved {
            bytes,
            is_exhausted,
        } = &*self.budget.0;
        let before = bytes.fetch_sub(self.reserved, Ordering::Relaxed);
        if before - self.reserved <= BUDGET_BYTES / 2 {
            is_exhausted.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_heads_share_the_budget_until_their_connections_end() {
        let budget = HeadBudget::default();
        let mut rooms = Vec::new();
        loop {
            let mut room = budget.room();
            if !room.hold(FREE_BYTES + 64 * 1024) {
                break;
            }
            // A smaller head on the same connection frees nothing, and takes nothing more.
            assert!(room.hold(100));
            rooms.push(room);
        }
        assert_eq!(rooms.len(), BUDGET_BYTES / (64 * 1024));
        assert!(!budget.room().hold(FREE_BYTES + 1));
        assert!(budget.room().hold(FREE_BYTES));
        rooms.pop();
        assert!(budget.room().hold(FREE_BYTES + 64 * 1024));
    }
}
