//! Connections per thread: one for each backend, shared by all operations of the thread.

use std::{
    any::Any,
    cell::RefCell,
    sync::{Arc, Weak},
};

use actix_web::rt;
use futures_util::future::{FutureExt as _, LocalBoxFuture, Shared};

use super::{fault::Unreachable, health::Health};

/// A connection that is open, or being opened.
pub(super) type Kept<C> = Shared<LocalBoxFuture<'static, Result<C, Unreachable>>>;

struct Entry {
    identity: Weak<()>,
    /// How often the backend had come back up when it was made.
    returns: u32,
    /// A [`Kept`].
    opening: Box<dyn Any>,
}

thread_local! {
    static CONNECTIONS: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}

/// This thread's connection to a backend. `connect` opens it if there is none, or only one from before the backend was
/// down. Each backend has one type of connection.
pub(super) fn connection<C: Clone + 'static>(
    health: &Health,
    connect: impl FnOnce() -> LocalBoxFuture<'static, Result<C, Unreachable>>,
) -> Kept<C> {
    let (identity, returns) = (health.identity(), health.returns());
    CONNECTIONS.with_borrow_mut(|connections| {
        let is_own = |entry: &&Entry| is_of(entry, identity) && entry.returns == returns;
        let entry = connections.iter().find(is_own);
        let opening = entry.and_then(|entry| entry.opening.downcast_ref::<Kept<C>>());
        if let Some(opening) = opening {
            return opening.clone();
        }
        connections.retain(|entry| entry.identity.strong_count() > 0 && !is_of(entry, identity));
        // In its own task: the operation that starts it may be given up while others wait for it.
        let opens = connect();
        let own = Arc::downgrade(identity);
        let task = rt::spawn(async move {
            let opened = opens.await;
            // Perhaps nothing waits for it any more, and a later operation must try again.
            if opened.is_err() {
                forget_unopened(&own, returns);
            }
            opened
        });
        let opened = task.map(|opened| {
            opened.unwrap_or_else(|error| Err(Unreachable::failed("the connection", error)))
        });
        let opening = opened.boxed_local().shared();
        connections.push(Entry {
            identity: Arc::downgrade(identity),
            returns,
            opening: Box::new(opening.clone()),
        });
        opening
    })
}

/// Drops a connection, unless another has already replaced it.
pub(super) fn forget<C: Clone + 'static>(health: &Health, kept: &Kept<C>) {
    CONNECTIONS.with_borrow_mut(|connections| {
        connections.retain(|entry| {
            let opening = entry.opening.downcast_ref::<Kept<C>>();
            let is_it = opening.is_some_and(|opening| opening.ptr_eq(kept));
            !(is_it && is_of(entry, health.identity()))
        });
    });
}

fn forget_unopened(identity: &Weak<()>, returns: u32) {
    CONNECTIONS.with_borrow_mut(|connections| {
        connections.retain(|entry| !(entry.identity.ptr_eq(identity) && entry.returns == returns));
    });
}

fn is_of(entry: &Entry, identity: &Arc<()>) -> bool {
    std::ptr::eq(entry.identity.as_ptr(), Arc::as_ptr(identity))
}
