//! Holds: what a policy reserves for a request until it is known whether a token was issued.

use crate::BoxFuture;

/// A reservation of a policy for one request, for example a unit of a quota.
///
/// Dropping a hold neither commits nor releases it: the unit stays counted. So a crash may lose units that were
/// reserved, but never adds any.
pub trait Hold {
    /// Waits until the count is durable. The token may be sent only after this returns `Ok`.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`](crate::Fault) if it is unknown whether the count is durable. The hold must then be
    /// released.
    fn commit(&mut self) -> BoxFuture<'_, ()>;

    /// Releases the reservation, because no token was issued.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`](crate::Fault) if the release failed. The unit then stays counted.
    fn release(self: Box<Self>) -> BoxFuture<'static, ()>;
}
