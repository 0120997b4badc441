//! What a policy holds for a request until it is known whether a token was issued.

use crate::BoxFuture;

/// Something that a policy holds for a request, for example a unit of a quota.
///
/// Dropping a hold neither commits nor releases it: what was counted stays counted. So a crash may lose the units in
/// flight, and never adds one.
pub trait Hold {
    /// Waits until the count would survive a power cut. The token may be sent only after this returns `Ok`.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if the count is uncertain. The hold must then be released.
    fn commit(&mut self) -> BoxFuture<'_, ()>;

    /// Gives back what is held, because no token was issued.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if it could not be given back. It stays counted.
    fn release(self: Box<Self>) -> BoxFuture<'static, ()>;
}
