//! Work that is not lost with the request that waits for it.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_web::rt;
use futures_util::{FutureExt as _, future::CatchUnwind};

/// Runs `work` to its end, whether or not somebody waits for it: who drops the [`Shield`], as a handler is dropped when
/// its client goes away, leaves the rest of the work to a task of its own.
///
/// As long as somebody waits, it is a part of the waiting task: a task for each request would have its turn after all
/// requests that are to be read, and so would its answer, which costs half a millisecond with hundreds of them.
/// It is to be dropped on a thread that runs actix's tasks, as handlers are.
pub(crate) fn shield<F: Future + 'static>(work: F) -> Shield<F> {
    Shield {
        work: Some(Box::pin(AssertUnwindSafe(work).catch_unwind())),
    }
}

/// The wait for shielded work. It resolves to the work's output, or to what the work panicked with.
#[must_use]
pub(crate) struct Shield<F: Future + 'static> {
    /// `None` when it is done.
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
