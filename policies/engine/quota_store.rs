//! Stores of quotas: the port of the kind `quota`.

use futures_util::future::{Either, Ready, ready};
use jiff::Timestamp;

use crate::{BoxFuture, Clock, Counter, Fault, Hold, Window};

/// A store of quotas.
///
/// A store keeps one window per counter, which follows the requested windows as [`Window::follow`] says. It never goes
/// back to an earlier one, so a clock that is set back does not reopen a window. If the setting of the windows is
/// changed, the units of the current window count on.
pub trait QuotaStore: Send + Sync {
    /// Returns the time that windows are based on. Gates that share a store use the store's time, because their own
    /// clocks may differ.
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

    /// Counts one unit in `window`, unless `limit` units are counted already.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if the store fails. The unit may then stay counted.
    fn reserve(&self, counter: Counter, window: Window, limit: u64) -> BoxFuture<'_, Reservation>;

    /// Returns the number of units that are counted, and their window.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if the store fails.
    fn used(&self, counter: Counter, window: Window) -> BoxFuture<'_, (u64, Window)>;

    /// Releases all units of a counter.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if the store fails.
    fn give_back(&self, counter: Counter, window: Window) -> BoxFuture<'_, ()>;
}

/// The result of a reservation.
pub enum Reservation {
    /// One unit is reserved.
    Granted {
        /// The hold that settles the unit.
        hold: Box<dyn Hold>,
        /// The number of units in the window, including this one.
        used: u64,
        /// The window that the unit is counted in.
        window: Window,
    },
    /// The limit is reached. Nothing was counted.
    Exhausted {
        /// The window whose units are used up.
        window: Window,
    },
}
