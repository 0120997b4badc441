//! A task that ends with its owner.

use actix_web::rt::{self, task::JoinHandle};

/// Drives a connection. It ends when dropped, whatever the server does.
pub(super) struct OwnedTask(JoinHandle<()>);

impl OwnedTask {
    pub(super) fn spawn(task: impl Future<Output = ()> + 'static) -> Self {
        Self(rt::spawn(task))
    }
}

impl Drop for OwnedTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}
