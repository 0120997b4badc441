//! Stores of quotas.

use futures_util::future::{Either, Ready, ready};
use jiff::Timestamp;

use crate::{BoxFuture, Clock, Fault, Hold, PolicyName, Window};

/// The identity of one counter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Counter {
    /// The policy. Counters belong to policy names.
    pub policy: PolicyName,
    /// The key within the policy, from [`Per::key`].
    pub key: String,
}

/// A store of quotas: the port that a store implements.
///
/// A store keeps one window per counter and never goes back to an earlier one: for a window that starts before the
/// current one, it counts in the current one. So a clock that is set back does not reopen a window.
pub trait QuotaStore: Send + Sync {
    /// The time that windows are based on. Gates that share a store use the store's time, because their own clocks may
    /// differ.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if the store fails.
    fn now<'a>(
        &'a self,
        clock: &'a dyn Clock,
    ) -> Either<Ready<Result<Timestamp, Fault>>, BoxFuture<'a, Timestamp>> {
        Either::Left(ready(Ok(clock.now())))
    }

    /// Counts one unit in `window`, unless `limit` units are already counted.
    fn reserve(&self, counter: Counter, window: Window, limit: u64) -> BoxFuture<'_, Reservation>;

    /// How many units are counted, and in which window.
    fn used(&self, counter: Counter, window: Window) -> BoxFuture<'_, (u64, Window)>;

    /// Gives back all units of a counter.
    fn give_back(&self, counter: Counter, window: Window) -> BoxFuture<'_, ()>;
}

/// A store's answer to a reservation.
pub enum Reservation {
    /// One unit is reserved.
    Granted {
        /// Settles it.
        hold: Box<dyn Hold>,
        /// Units counted in the window, this one included.
        used: u64,
        /// The window it is counted in.
        window: Window,
    },
    /// The limit is reached. Nothing was counted.
    Exhausted {
        /// The window that it would have been counted in.
        window: Window,
    },
}
