//! A task that is aborted when its owner is dropped.

use actix_web::rt::{self, task::JoinHandle};

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
