//! Work that continues if the request that waits for it is dropped.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_web::rt;
use futures_util::{FutureExt as _, future::CatchUnwind};

/// Runs `work` to completion. If the [`Shield`] is dropped, as a handler is when its client disconnects, the rest of
/// the work continues in a background task.
///
/// Until then the work runs inside the waiting task. A task for each request would wait behind all pending reads, and
/// so would its response, which costs half a millisecond with hundreds of requests. Drop it only on a thread that runs
/// actix tasks, as handlers do.
pub(crate) fn shield<F: Future + 'static>(work: F) -> Shield<F> {
    Shield {
        work: Some(Box::pin(AssertUnwindSafe(work).catch_unwind())),
    }
}

/// Resolves to the work's output, or to its panic payload.
#[must_use]
pub(crate) struct Shield<F: Future + 'static> {
    /// `None` when the work is done.
    work: Option<Pin<Box<CatchUnwind<AssertUnwindSafe<F>>>>>,
}

impl<F: Future> Future for Shield<F> {
    type Output = Result<F::Output, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let work = self.work.as_mut().expect("what is done is not polled");
        let result = ready!(work.poll_unpin(context));
        self.work = None;
        Poll::Ready(result)
    }
}

impl<F: Future> Drop for Shield<F> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            rt::spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{sync::oneshot, task::LocalSet};

    use super::*;

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_is_done_to_its_end() {
        let test = async {
            let (go_on, wait) = oneshot::channel();
            let (done, is_done) = oneshot::channel();
            let mut waiting = shield(async move {
                wait.await.expect("it is told to go on");
                done.send(()).expect("somebody is told");
            });
            assert!(futures_util::poll!(&mut waiting).is_pending());
            drop(waiting);
            go_on.send(()).expect("it still waits");
            is_done.await.expect("it is done");
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn work_that_was_not_begun_is_done_too() {
        let test = async {
            let (done, is_done) = oneshot::channel();
            drop(shield(async move { done.send(()) }));
            is_done.await.expect("it is done");
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_panic_reaches_who_waits() {
        let result = shield(async { panic!("on purpose") }).await;
        let panicked = result.expect_err("it panics");
        assert_eq!(panicked.downcast_ref(), Some(&"on purpose"));
    }

    #[tokio::test]
    async fn work_that_is_done_is_not_begun_again() {
        // Nothing runs spawned tasks here, so a drop that spawned one would panic.
        let mut waiting = shield(async { 7 });
        assert_eq!((&mut waiting).await.ok(), Some(7));
        drop(waiting);
    }
}
