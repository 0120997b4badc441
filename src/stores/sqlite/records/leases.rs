//! What is taken for some time. Only this process has the file, so it is kept in memory: to take something writes nothing,
//! and what an earlier process had taken is due at once.

use std::{collections::HashMap, hash::Hash};

use jiff::Timestamp;

/// Rows that are due at some time, and are not due while they are taken.
pub(in crate::stores) struct Leases<K>(HashMap<K, Lease>);

#[derive(Clone, Copy)]
struct Lease {
    /// When the row was due as it was taken. A row with another time was finished and is due again.
    due_at: Timestamp,
    until: Timestamp,
}

impl<K> Default for Leases<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Copy + Eq + Hash> Leases<K> {
    /// How many rows may be taken.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes at most `limit` of the rows that are due, each with its key and the time when it is due.
    pub(super) fn take<T>(
        &mut self,
        due: Vec<(K, Timestamp, T)>,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Vec<T> {
        self.0.retain(|_, lease| lease.until > now);
        let mut taken = Vec::new();
        for (key, due_at, row) in due {
            if taken.len() == limit {
                break;
            }
            let lease = Lease { due_at, until };
            let before = self.0.get(&key);
            if before.is_none_or(|before| before.due_at != due_at) {
                self.0.insert(key, lease);
                taken.push(row);
            }
        }
        taken
    }
}
