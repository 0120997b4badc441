//! Limits the memory that request heads take.
//!
//! actix-http reads a connection into a buffer that grows up to 128 KiB and never shrinks. Without a limit over all
//! connections, a thousand clients that each send one large head and then stay idle would hold 128 MB.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// The size of heads that a connection may send without a reservation. Its buffer is at most twice as large.
const FREE_BYTES: usize = 8 * 1024;

/// The total of all reservations.
const BUDGET_BYTES: usize = 8 * 1024 * 1024;

/// The memory for large heads, which all connections of a listener share.
#[derive(Clone, Default)]
pub(super) struct HeadBudget(Arc<Reserved>);

#[derive(Default)]
struct Reserved {
    bytes: AtomicUsize,
    /// Whether a connection was refused since the budget was last half free.
    is_exhausted: AtomicBool,
}

/// The reservation of one connection. It lasts until the connection ends, because the buffer never shrinks.
pub(super) struct HeadReservation {
    budget: HeadBudget,
    reserved: usize,
}

impl HeadBudget {
    pub(super) fn for_connection(&self) -> HeadReservation {
        HeadReservation {
            budget: self.clone(),
            reserved: 0,
        }
    }
}

impl HeadReservation {
    /// Extends the reservation to heads of `bytes`. Returns whether the budget allows that.
    #[must_use]
    pub(super) fn extend_to(&mut self, bytes: usize) -> bool {
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
                    "request head memory exhausted, closing connections that send large heads"
                );
            }
            return false;
        }
        self.reserved = wanted;
        true
    }
}

impl Drop for HeadReservation {
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
        let mut connections = Vec::new();
        loop {
            let mut heads = budget.for_connection();
            if !heads.extend_to(FREE_BYTES + 64 * 1024) {
                break;
            }
            // A smaller head on the same connection changes nothing.
            assert!(heads.extend_to(100));
            connections.push(heads);
        }
        assert_eq!(connections.len(), BUDGET_BYTES / (64 * 1024));
        assert!(!budget.for_connection().extend_to(FREE_BYTES + 1));
        assert!(budget.for_connection().extend_to(FREE_BYTES));
        connections.pop();
        assert!(budget.for_connection().extend_to(FREE_BYTES + 64 * 1024));
    }
}
