//! Work that finishes even if the request that waits for it is dropped.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_web::rt;
use futures_util::{FutureExt as _, future::CatchUnwind};

/// Runs `work` to completion. If the returned future is dropped, as happens when a client disconnects, the rest of the
/// work continues in a background task. Drop it only on a thread that runs actix tasks.
///
/// Until it is dropped, the work runs inside the task that awaits it. `rt::spawn(work).await` would be plainer, but then
/// the work and the response wait behind all pending reads: with a durable quota that cost 5 % of the requests.
pub(crate) fn run_to_completion<F: Future + 'static>(work: F) -> RunToCompletion<F> {
    RunToCompletion {
        work: Some(Box::pin(AssertUnwindSafe(work).catch_unwind())),
    }
}

/// Resolves to the output of the work, or to its panic payload.
#[must_use]
pub(crate) struct RunToCompletion<F: Future + 'static> {
    /// `None` when the work is done.
    work: Option<Pin<Box<CatchUnwind<AssertUnwindSafe<F>>>>>,
}

impl<F: Future> Future for RunToCompletion<F> {
    type Output = Result<F::Output, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let work = self
            .work
            .as_mut()
            .expect("a finished future is not polled again");
        let result = ready!(work.poll_unpin(context));
        self.work = None;
        Poll::Ready(result)
    }
}

impl<F: Future> Drop for RunToCompletion<F> {
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
    async fn dropped_work_finishes_in_the_background() {
        let test = async {
            let (resume, resumed) = oneshot::channel();
            let (finish, finished) = oneshot::channel();
            let mut work = run_to_completion(async move {
                resumed.await.expect("the test resumes the work");
                finish.send(()).expect("the test waits for the work");
            });
            assert!(futures_util::poll!(&mut work).is_pending());
            drop(work);
            resume.send(()).expect("the work still waits");
            finished.await.expect("the work finishes");
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn work_that_never_started_is_also_done() {
        let test = async {
            let (finish, finished) = oneshot::channel();
            drop(run_to_completion(async move { finish.send(()) }));
            finished.await.expect("the work finishes");
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_panic_is_returned_to_the_caller() {
        let result = run_to_completion(async { panic!("on purpose") }).await;
        let payload = result.expect_err("the work panics");
        assert_eq!(payload.downcast_ref(), Some(&"on purpose"));
    }

    #[tokio::test]
    async fn finished_work_does_not_run_again() {
        // There is no runtime for local tasks here, so a drop that spawned one would panic.
        let mut work = run_to_completion(async { 7 });
        assert_eq!((&mut work).await.ok(), Some(7));
        drop(work);
    }
}
